"""How often Python looks for garbage that refers to itself."""

import gc

MORE_OBJECTS = 50_000  # than after the last look; the polls of hundreds of channels come and go below that
TIMES = 10  # as often among the younger objects only as among the older, too


def calm_collector() -> None:
    """From now on, look only where objects have become more, and never again at what is there by now.

    By default Python looks after each poll, and every few seconds through all that the bridge knows: with thousands of
    channels that stops everything for a tenth of a second. Nearly all objects of the bridge go without it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(MORE_OBJECTS, TIMES, TIMES)
