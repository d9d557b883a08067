"""What holds for every test."""

import os

from hypothesis import settings

# These machines are shared and noisy: how long an example takes says nothing. Where a run decides about a change, it
# draws the same examples each time; elsewhere it may find new ones.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
