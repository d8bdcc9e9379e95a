"""Option strings, as a command line hands them over: refused with a place and a reason, or understood.

In: which source address is preset (an octet), then the string, of any octets. Held: an error changes no field of the
client and points into the string; what was understood, written out again, means the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from guest.netpoll import Net, Netpoll, OptionError, netpoll_parse_options
from guest.netpoll.options import Options, parse
from guest.netpoll.wire.ethernet import format_mac
from guest.tests.fuzz.table import Target

PRESETS = (None, ip_address("10.0.0.1"), ip_address("fd00::1"))
FIELDS = ("local_port", "local_ip", "dev_name", "remote_port", "remote_ip", "remote_mac")
ADDRESS = r"[0-9a-fA-F:.]"
GRAMMAR = re.compile(
    rf"[0-9]*@{ADDRESS}*/[^\s/:,]{{0,15}},[0-9]*@{ADDRESS}+/([0-9a-fA-F]{{1,2}}(:[0-9a-fA-F]{{1,2}}){{5}})?"
)
STRINGS = (
    "@/,@10.0.0.2/",
    "6665@10.0.0.1/eth0,6666@10.0.0.2/52:54:00:12:34:56",
    "@fd00::1/wire0,514@fd00::2/",
    "@/bond0,@0.0.0.0/",
    "@::ffff:1.2.3.4/,@::/2:0:0:0:0:1",
    "1@/eth0,",
    "65536@/,@1.1.1.1/",
    "65535@/,99999@1.1.1.1/",
    "\u0661@/,@1.1.1.1/",
    "@/,\u00b2@1.1.1.1/",
    "@/a:b,@1.1.1.1/",
    "@/a\u2003b,@1.1.1.1/",
    "@/sixteen-letters-,@1.1.1.1/",
    "@fe80::1%eth0/,@fe80::2/",
    "@10.0.0.1/,@fd00::2/",
    "@/,@10.0.0.2",
    "@/a b,@1.1.1.1/",
    "",
)


def run(data: bytes) -> None:
    opt = data[1:].decode("utf-8", "surrogateescape")  # as sys.argv has what is not UTF-8
    try:
        options = parse(opt)
    except OptionError as error:
        _check_error(opt, error)
        _check_refused(opt, data[:1])
        return
    assert GRAMMAR.fullmatch(opt), "not what the grammar allows"
    assert all(port is None or port <= 0xFFFF for port in (options.local_port, options.remote_port))
    assert parse(written(options)) == options
    _check_client(opt, options, data[:1])


def _check_error(opt: str, error: OptionError) -> None:
    assert 1 <= error.column <= len(opt) + 1
    assert error.rest == opt[error.column - 1 :]
    assert str(error)


def written(options: Options) -> str:
    """The string that says the same."""
    mac = "" if options.remote_mac is None else format_mac(options.remote_mac)
    local = "@".join("" if part is None else str(part) for part in (options.local_port, options.local_ip))
    port = "" if options.remote_port is None else options.remote_port
    return f"{local}/{options.dev_name or ''},{port}@{options.remote_ip}/{mac}"


def _client(choice: bytes) -> Netpoll:
    return Netpoll(Net(), local_ip=PRESETS[sum(choice) % len(PRESETS)])


def _values(np: Netpoll) -> list[object]:
    return [getattr(np, name) for name in FIELDS]


def _check_refused(opt: str, choice: bytes) -> None:
    np = _client(choice)
    before = _values(np)
    try:
        netpoll_parse_options(np, opt)
    except OptionError:
        assert _values(np) == before, "an error left traces"
    else:
        raise AssertionError("refused by parse(), taken by netpoll_parse_options()")


def _check_client(opt: str, options: Options, choice: bytes) -> None:
    np = _client(choice)
    before = _values(np)
    preset = np.local_ip
    fits = options.local_ip or preset is None or preset.version == options.remote_ip.version
    try:
        netpoll_parse_options(np, opt)
    except OptionError:
        assert _values(np) == before, "an error left traces"
        assert not fits, "refused, but for what?"
        return
    assert fits, "the preset address is of the other family"
    given = [getattr(options, name) for name in FIELDS]
    assert _values(np) == [old if new is None else new for old, new in zip(before, given, strict=True)]


def encoded() -> Iterator[bytes]:
    for number, text in enumerate(STRINGS):
        yield bytes((number % 3,)) + text.encode()


TOKENS = (b"@", b"/", b",", b":", b"::", b"%", b"10.0.0.2", b"fd00::2", b"eth0", b"65535", b"ff:ff:ff:ff:ff:ff", b"..")
TARGET = Target(run, encoded, TOKENS, max_len=120)
