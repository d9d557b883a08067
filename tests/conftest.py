"""What holds for every test."""

import os
import signal

from hypothesis import settings

# These machines are shared and noisy: how long an example takes says nothing. Where a run decides about a change, it
# draws the same examples each time; elsewhere it may find new ones.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# What a script starts in the background (`make test &`) ignores SIGINT, and so does all that it starts. Tests end
# programs with SIGINT, as a person does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
