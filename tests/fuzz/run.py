"""`make fuzz`: a million random and mutated frames through the stream, in both roles.

Exit status 1 on the first exception, unbounded buffer or frame that is not found again; the seed that it names brings
it back. The test suite runs a short cut of the same (tests/cti/test_fuzz.py).
"""

import argparse
import itertools
import sys
import time
import traceback

from cti_mqtt.cti.frame import Direction
from tests.fuzz.campaign import LARGEST, Campaign, Figures

CAMPAIGN_FRAMES = 4000
ROLES = {Direction.REQUEST: "server, receives requests", Direction.FEEDBACK: "client, receives feedbacks"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=1_000_000, help="how many, both roles together")
    parser.add_argument("--seed", type=int, default=0, help="of the first campaign; the others count on from it")
    options = parser.parse_args()
    if options.frames < 2:
        parser.error("--frames: at least 2, one a role")
    began = time.perf_counter()
    totals = {direction: Figures() for direction in Direction}
    for direction, total in totals.items():
        share = options.frames // 2 if direction is Direction.REQUEST else options.frames - options.frames // 2
        for seed in itertools.count(options.seed):
            frames = min(CAMPAIGN_FRAMES, share - total.frames)
            if frames <= 0:
                break
            try:
                total.add(Campaign(direction, seed).run(frames))
            except Exception:
                traceback.print_exc()
                print(f"{ROLES[direction]}: seed {seed} failed (--seed {seed})", file=sys.stderr)
                return 1
    report(totals, time.perf_counter() - began)
    return 0


def report(totals: dict[Direction, Figures], seconds: float) -> None:
    frames = sum(total.frames for total in totals.values())
    print(f"{frames} frames in {seconds:.1f} s ({frames / seconds:.0f} a second); no exception")
    for direction, total in totals.items():
        print(f"\n{ROLES[direction]}: {total.frames} frames, {total.fed_bytes} bytes")
        for kind, count in sorted(total.events.items()):
            print(f"  {count:>10}  {kind}")
        print(f"  {total.skipped_bytes:>10}  bytes skipped")
        print(f"  {total.peak_buffer_bytes:>10}  bytes buffered at the most (one bound is {LARGEST[direction]})")
        for when, count in sorted(total.returns.items()):
            print(f"  {count:>10}  times found back {when}")


if __name__ == "__main__":
    sys.exit(main())
