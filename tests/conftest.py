"""What holds for every test."""

from hypothesis import settings

# These machines are shared and noisy: how long an example takes says nothing.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
