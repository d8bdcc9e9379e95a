"""What the capture kernel's command line tells its first process.

    python3 -m guest.capture --module e1000 --nic 52:54:00:6e:70:01 --filter 31 netdump 20024@10.0.0.2/DEV,20023@10.0.0.1/52:54:00:68:6f:01 --vmcore -

In: words. Out: a namespace. Rule: the client's own words come last and are `python -m guest.netpoll`'s; DEV in them becomes the interface.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

DEVICE = "DEV"  # in the client's words


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Exits with 2 and the usage for words that are not understood."""
    parser = argparse.ArgumentParser(prog="guest.capture", allow_abbrev=False)
    parser.add_argument("--module", action="append", default=[], help="load it, and what it needs")
    parser.add_argument(
        "--nic",
        action="append",
        default=[],
        metavar="MAC",
        help="of the NIC, or of each slave; none: the client takes one",
    )
    parser.add_argument("--bond", metavar="MODE", help="join the NICs, as the crashed kernel did")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the bond; a slave by its MAC"
    )
    parser.add_argument("--carrier", type=float, default=15.0, metavar="S", help="go on without one after so long")
    parser.add_argument(
        "--filter", type=int, metavar="LEVEL", help="give the client makedumpfile's output as its standard input"
    )
    parser.add_argument(
        "--crash", type=int, metavar="KIB", help="panic after so much of that output: a test of the watcher"
    )
    parser.add_argument("--then", choices=("stay", "reboot"), default="stay", help="when the client has ended")
    parser.add_argument("client", nargs=argparse.REMAINDER, help="words of python -m guest.netpoll")
    return parser.parse_args(words)
