"""`./build.sh bench`: measures the daemon against bare servers on this machine, in one run, and prints a table."""

import argparse
import os
import sys
import time

import wrk
from frozen import binary
from growth import growth
from hostile import hostile
from jobs import worker
from short import logins, reads, submissions
from stage import show, staged
from transfer import gigabyte

PARTS = {
    "reads": reads,
    "logins": logins,
    "submissions": submissions,
    "gigabyte": gigabyte,
    "hostile": hostile,
    "growth": growth,
    "worker": worker,
    "binary": binary,
}
WITHOUT_LOAD = {"gigabyte", "worker", "binary"}  # parts that the load generator has nothing to do with


def main():
    """Run the parts, each with a daemon of its own; status 1 when an aim was missed."""
    parser = argparse.ArgumentParser(prog="./build.sh bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which to run: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=4, help="length of one load")
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if set(given.parts or PARTS) - WITHOUT_LOAD:
        wrk.check()
    rows, begin = [], time.monotonic()
    for name in given.parts or PARTS:
        print(f"bench: {name}", file=sys.stderr)
        with staged(given.seconds) as stage:
            rows += PARTS[name](stage)
    show(rows)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {time.monotonic() - begin:.0f} s. bare: a cheroot of one process")
    print("and 10 threads that answers the same bytes in the same run; for files a plain loop; for growth the smallest store.")
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
