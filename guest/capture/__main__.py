"""From the first instruction of user space to the end of the dump; see guest.capture.

In: sys.argv, which the kernel filled. Out: nobody is left to take an exit status, so how it ended is the console's last line. Rule: a first
process must not end, or the kernel panics.
"""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import time
import traceback
from collections.abc import Callable

from guest.capture.arguments import DEVICE, parse
from guest.capture.memory import crash_after, filtered, no_more
from guest.capture.network import bring_up
from guest.capture.system import load_modules, mount_all, reboot

NOBODYS = "pmd0"  # what a device is called that a driver of ours takes


def say(text: str) -> None:
    """A line on the console, with the seconds since this kernel began."""
    print(f"capture: {time.clock_gettime(time.CLOCK_BOOTTIME):.3f} {text}", flush=True)


def capture(given: argparse.Namespace) -> int:
    """Everything. Returns the client's exit code; raises what went wrong before it."""
    mount_all()
    say(f"modules: {' '.join(load_modules(given.module)) or 'none'}")
    device = interface(given) if given.nic else NOBODYS
    source = filtered(given.filter) if given.filter is not None else None
    if given.crash is not None:
        crash_after(given.crash)
    code = client([device if word == DEVICE else word.replace(f"/{DEVICE},", f"/{device},") for word in given.client])
    if source is not None:
        no_more()
    if source is not None and source.wait():
        say(f"makedumpfile ended with {source.returncode}")
    return code


def interface(given: argparse.Namespace) -> str:
    """Up, as the kernel drives it."""
    options = dict(option.split("=", 1) for option in given.option)
    device, carrier = bring_up(given.nic, given.bond, options, given.carrier)
    say(f"{device} is up, {'carrier' if carrier else f'no carrier in {given.carrier:g} s, going on'}")
    return device


def client(words: list[str]) -> int:
    """The exit code of `python -m guest.netpoll WORDS`, run in this process: another Python would take a second to start."""
    say(f"client: {' '.join(words)}")
    try:
        return _command(words[0])(words)
    except SystemExit as end:  # argparse's way to say that it did not understand
        return int(end.code or 0)


def _command(name: str) -> Callable[[list[str]], int]:
    """Imported now: it is many files, and the NIC is up before they are read."""
    if name == "peer":
        from guest.capture.peers import run

        return run
    from guest.netpoll.__main__ import main as netpoll

    return netpoll


def main() -> None:
    """Does not return."""
    gc.set_threshold(100_000)  # a garbage collection for each 700 objects would cost more than the memory is worth
    say("began")
    given = parse(sys.argv[1:])
    try:
        say(f"ended with {capture(given)}")
    except Exception as error:
        traceback.print_exc()
        say(f"failed: {type(error).__name__}: {error}")
    if given.then == "reboot":
        reboot()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
