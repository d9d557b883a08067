"""The bridge for an hour under an ordinary load: memory and file descriptors stay flat, no poll is missed."""
