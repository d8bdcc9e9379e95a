"""netpoll as a tool, on any interface of a Linux machine: `python -m guest.netpoll send|listen|answer|sysrq|trace|gdbstub ...`.

In: a netpoll option string, lines, frames. Out: datagrams, lines, a capture. The rule it keeps: what is asked for and what
came of it show in the exit code:

    0  done: everything was sent, the wanted number came, or the user ended it
    1  not done: time ran out, messages were lost, or (listen --strict, --stream) something was missing or damaged
    2  the command line, an option string, or a message is wrong
    3  the interface: it is not there, not ours to use, has no address or carrier, or went away

OPTIONS is netpoll's `[srcport]@[srcip]/[dev],[tgtport]@<tgtip>/[tgtmac]`; see guest/netpoll/options.py. The defaults are
netconsole's: port 6665, device eth0 and its address, port 6666, broadcast MAC. A target address of 0.0.0.0 or :: lets
listen and answer hear any peer.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from guest.netpoll.errors import MessageTooLong, OptionError, SetupError
from guest.netpoll.tool.arguments import parse_arguments
from guest.netpoll.tool.session import DeviceGone, explain

DONE, NOT_DONE, WRONG_USE, NO_DEVICE = range(4)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. argparse exits by itself, with 2."""
    logging.basicConfig(format="netpoll: %(message)s", level=logging.WARNING)
    arguments = parse_arguments(argv)
    try:
        return DONE if arguments.command(arguments) else NOT_DONE
    except (OptionError, MessageTooLong, ValueError) as error:
        return _fail(str(error), WRONG_USE)
    except (SetupError, DeviceGone) as error:
        return _fail(explain(error), NO_DEVICE)
    except BrokenPipeError:  # whoever read our lines has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return DONE
    except OSError as error:
        return _fail(str(error), NO_DEVICE)


def _fail(why: str, code: int) -> int:
    print(f"netpoll: {why}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
