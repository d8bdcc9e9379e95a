"""The command line of `python -m guest.netpoll`, and nothing but: each command's function is in `.command`.

In: argv. Out: an argparse.Namespace. The rule it keeps: what can be checked without touching the system is checked here.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from guest.netpoll.clients.netconsole.sender import Sysdata
from guest.netpoll.clients.sequence import HEADER_LENGTH, Stream
from guest.netpoll.clients.sysrq import KEYS, TRIGGER
from guest.netpoll.middleware.fault import Faults

EPILOG = """OPTIONS: [srcport]@[srcip]/[dev],[tgtport]@<tgtip>/[tgtmac], for instance
  6665@10.0.0.2/eth0,6666@10.0.0.1/52:54:00:12:34:56   or, with the defaults   @/eth0,@10.0.0.1/
exit codes: 0 done, 1 not done (time ran out, losses), 2 wrong use, 3 no such interface or no right to use it"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; exits with 2 and the usage when it cannot."""
    parser = argparse.ArgumentParser(
        prog="python -m guest.netpoll",
        description="Send, receive and answer over a network interface as netpoll does; needs CAP_NET_RAW.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        required=True, metavar="send|listen|answer|sysrq|trace|netdump|netdump-server|gdbstub|pmd"
    )
    for add in _COMMANDS:
        add(commands)
    arguments, rest = parser.parse_known_args(argv)
    _take_lines(parser, arguments, rest)
    if getattr(arguments, "stream_seed", None) is not None:
        arguments.stream = _stream(parser, arguments)
    return arguments


def _take_lines(parser: argparse.ArgumentParser, arguments: argparse.Namespace, rest: list[str]) -> None:
    """LINEs that come after options: argparse takes an empty list before the first option for all of them."""
    lines = rest[1:] if rest[:1] == ["--"] else rest
    if lines is rest and (unknown := [word for word in rest if word.startswith("-")]):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if lines and "lines" not in arguments:
        parser.error(f"unrecognized arguments: {' '.join(lines)}")
    if lines:
        arguments.lines = arguments.lines + lines


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _late(name: str) -> Callable[[argparse.Namespace], bool]:
    """The function `name` of the module of that name, imported when it runs: a capture kernel has no time for those that it does
    not run."""

    def command(arguments: argparse.Namespace) -> bool:
        done: bool = getattr(importlib.import_module(f"guest.netpoll.tool.{name}"), name)(arguments)
        return done

    return command


def _command(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=summary, description=summary, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(command=_late(name.replace("-", "_")), stream=None, af_packet="calls")
    parser.add_argument("options", metavar="OPTIONS", help="netpoll option string")
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="give up after so many seconds")
    parser.add_argument("-q", "--quiet", action="store_true", help="no summary on standard error")
    return parser


def _add_session(parser: argparse.ArgumentParser) -> None:
    where = "drive the NIC at this PCI address, or under this interface, with a driver of our own (docs/pmd.md)"
    parser.add_argument("--pmd", metavar="WHERE", help=where)
    parser.add_argument("--pcapng", type=Path, metavar="FILE", help="record every frame of our own device to FILE")
    parser.add_argument(
        "--faults",
        type=_faults,
        metavar="LIST",
        help="misbehave, both ways: drop=P,duplicate=P,reorder=P,corrupt=P,delay=P (0 to 1), and seed=N",
    )
    parser.add_argument("--require-carrier", action="store_true", help="fail when there is no link")
    parser.add_argument("--carrier-timeout", type=_seconds, default=4.0, metavar="S", help="wait so long for it (4)")


def _add_stream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stream", dest="stream_seed", type=int, metavar="SEED", help="numbered datagrams of this seed"
    )
    parser.add_argument(
        "--length", type=_bounds, default=(64, 1400), metavar="MIN-MAX", help="their payload lengths (64-1400)"
    )


def _add_send(commands: Commands) -> None:
    parser = _command(commands, "send", "send lines, given or from standard input")
    parser.add_argument("lines", nargs="*", metavar="LINE", help="what to send; standard input when there is none")
    parser.add_argument("--count", type=_natural, metavar="N", help="stop after N messages; given LINEs are repeated")
    parser.add_argument("--interval", type=_seconds, default=0.0, metavar="S", help="pause between messages")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--netconsole", choices=("plain", "ext"), help="as netconsole messages, plain or extended")
    form.add_argument("--syslog", action="store_const", const="5424", help="as syslog of RFC 5424")
    form.add_argument("--syslog-bsd", dest="syslog", action="store_const", const="3164", help="as syslog of RFC 3164")
    form.add_argument("--sysrq", action="store_true", help="lines are sysrq keys (0-9 a-z) for a listening netconsole")
    parser.add_argument("--severity", type=int, choices=range(8), default=6, metavar="0-7", help="6, informational")
    parser.add_argument("--facility", type=int, choices=range(24), default=1, metavar="0-23", help="1, user")
    parser.add_argument("--release", action="store_true", help="netconsole ext: prepend the kernel's release")
    parser.add_argument(
        "--userdata", type=_pair, action="append", default=[], metavar="KEY=VALUE", help="netconsole ext: append"
    )
    parser.add_argument(
        "--sysdata", type=_sysdata, default=Sysdata(), metavar="LIST", help="netconsole ext: cpu,taskname,release,msgid"
    )
    _add_stream(parser)
    _add_session(parser)


def _add_listen(commands: Commands) -> None:
    parser = _command(commands, "listen", "print what arrives, and what is missing of it")
    parser.add_argument(
        "--as",
        dest="form",
        choices=("auto", "text", "netconsole", "syslog"),
        default="auto",
        help="how to read datagrams; auto: extended netconsole or <PRI> where they look so, text otherwise",
    )
    parser.add_argument("--count", type=_natural, metavar="N", help="end after N messages")
    parser.add_argument("--max-severity", type=int, choices=range(8), default=7, metavar="0-7", help="hide above")
    parser.add_argument("--json", action="store_true", help="one JSON object an event")
    parser.add_argument("--strict", action="store_true", help="exit 1 when anything was missing, twice or broken")
    parser.add_argument("--trap", action="store_true", help="answer ARP for our address (an interface without one)")
    _add_stream(parser)
    _add_session(parser)


def _add_answer(commands: Commands) -> None:
    parser = _command(commands, "answer", "answer ARP for our address, and echo each datagram to its sender")
    parser.add_argument("--count", type=_natural, metavar="N", help="end after N echoes")
    _add_session(parser)


def _add_sysrq(commands: Commands) -> None:
    parser = _command(commands, "sysrq", "pass the target's letters to this machine's sysrq trigger")
    parser.add_argument("--trigger", type=Path, default=TRIGGER, metavar="FILE", help=str(TRIGGER))
    parser.add_argument("--allow", default="".join(sorted(KEYS)), metavar="KEYS", help="only these of 0-9 and a-z")
    parser.add_argument("--count", type=_natural, metavar="N", help="end after N keys")
    parser.add_argument("--trap", action="store_true", help="answer ARP for our address (an interface without one)")
    _add_session(parser)


def _add_trace(commands: Commands) -> None:
    parser = _command(commands, "trace", "record an interface's frames, both ways, as pcapng")
    parser.add_argument("file", type=Path, metavar="FILE", help="the capture; replaced")
    parser.add_argument("--count", type=_natural, metavar="N", help="end after N frames")
    parser.epilog = (
        "OPTIONS may be the bare name of an interface; an option string records only frames from and to its\n"
        "target address (all with 0.0.0.0).\n\n" + EPILOG
    )


def _add_netdump(commands: Commands) -> None:
    parser = _command(commands, "netdump", "send a dump, this machine's /proc/vmcore, to a netdump server")
    parser.add_argument(
        "--vmcore", default="/proc/vmcore", metavar="FILE", help="what to send (/proc/vmcore); - for a stream"
    )
    parser.add_argument(
        "--protocol", choices=("debugnet", "netdump"), default="debugnet", help="FreeBSD's (default), Red Hat's"
    )
    parser.add_argument("--path", default="", metavar="FOLDER", help="debugnet: where, below the server's folder")
    parser.add_argument(
        "--panic", default="", metavar="TEXT", help="the header's panic string; netdump: for SHOW_STATE"
    )
    parser.add_argument("--magic", type=_magic, metavar="HEX", help="netdump: 64 bits that requests must have (random)")
    parser.add_argument(
        "--patience", type=_seconds, default=600.0, metavar="S", help="give up after S of silence (600)"
    )
    parser.add_argument("--progress", type=_seconds, default=2.0, metavar="S", help="a line every S (2)")
    parser.set_defaults(af_packet="sending")
    _add_session(parser)


def _add_netdump_server(commands: Commands) -> None:
    parser = _command(commands, "netdump-server", "take dumps of crashed machines into a folder")
    parser.add_argument("--dir", type=Path, required=True, metavar="FOLDER", help="where they go; it must be there")
    parser.add_argument(
        "--protocol", choices=("debugnet", "netdump"), default="debugnet", help="FreeBSD's (default), Red Hat's"
    )
    parser.add_argument("--magic", type=_magic, metavar="HEX", help="netdump: only of machines whose START has it")
    parser.add_argument("--limit", type=_natural, default=1 << 36, metavar="BYTES", help="of one dump (64 GiB)")
    parser.add_argument("--dumps", type=_natural, default=16, metavar="N", help="at a time (16)")
    parser.add_argument("--idle", type=_seconds, default=600.0, metavar="S", help="a client silent for S is gone (600)")
    parser.add_argument("--count", type=_natural, metavar="N", help="end after N complete dumps")
    parser.set_defaults(af_packet="receiving")
    _add_session(parser)


def _add_pmd(commands: Commands) -> None:
    summary = "NICs that drivers of our own can take from the kernel: list them, give them back"
    parser = commands.add_parser("pmd", help=summary, description=summary)
    parser.set_defaults(command=_late("pmd"), stream=None)
    parser.add_argument("what", choices=("list", "release"), help="release: those whose taker was killed")
    parser.add_argument("addresses", nargs="*", metavar="ADDRESS", help="PCI addresses; all that are left, if none")


def _add_gdbstub(commands: Commands) -> None:
    parser = _command(commands, "gdbstub", "serve a crashed kernel's vmcore to gdb: target remote udp:ADDRESS:6443")
    parser.add_argument("--vmcore", type=Path, default=Path("/proc/vmcore"), metavar="FILE", help="/proc/vmcore")
    parser.add_argument(
        "--idle", type=_seconds, default=60.0, metavar="S", help="a silent debugger may be replaced (60)"
    )
    parser.add_argument("--once", action="store_true", help="end when a debugger has detached")
    parser.add_argument("--trap", action="store_true", help="answer ARP for our address (an interface without one)")
    _add_session(parser)
    parser.epilog = (
        "Ports not named are kgdboe's, 6443 and 6442; a target address of 0.0.0.0 lets any debugger in.\n\n" + EPILOG
    )


_COMMANDS = (
    _add_send, _add_listen, _add_answer, _add_sysrq, _add_trace, _add_netdump, _add_netdump_server, _add_gdbstub,
    _add_pmd,
)  # fmt: skip


def _stream(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Stream:
    if arguments.count is None:
        parser.error("--stream needs --count")
    try:
        return Stream(arguments.stream_seed, arguments.count, *arguments.length)
    except ValueError as error:
        parser.error(str(error))


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _faults(text: str) -> tuple[int, Faults]:
    words = dict(word.partition("=")[::2] for word in text.split(","))
    seed = words.pop("seed", "0")
    unknown = sorted(words.keys() - {"drop", "duplicate", "reorder", "corrupt", "delay"})
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among drop,duplicate,reorder,corrupt,delay,seed")
    try:
        rates: dict[str, Any] = {word: float(value) for word, value in words.items()}
        return int(seed), Faults(**rates)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _magic(text: str) -> int:
    try:
        magic = int(text, 16)
    except ValueError:
        magic = -1
    if not 0 <= magic < 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a hexadecimal number of 64 bits")
    return magic


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _bounds(text: str) -> tuple[int, int]:
    least, dash, most = text.partition("-")
    if not (least.isdigit() and (most.isdigit() or not dash)):
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN-MAX, with at least {HEADER_LENGTH}")
    return int(least), int(most or least)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _sysdata(text: str) -> Sysdata:
    names = text.split(",")
    unknown = sorted(set(names) - {"cpu", "taskname", "release", "msgid"})
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among cpu,taskname,release,msgid")
    return Sysdata(**dict.fromkeys(names, True))
