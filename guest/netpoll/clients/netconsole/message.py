r"""The extended netconsole message: header, escaped text, dictionary lines.

    [release,]level,seq,usec,flag[,key=value...];text\n key=value\n ...

In: one packet or one reassembled body. Out: a `Header` and a `Message`, or `FormatError`. The rule it keeps: what is
emitted is what `msg_print_ext_header`, `msg_add_ext_text` and netconsole write, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_CHUNK = 1000  # MAX_PRINT_CHUNK: the largest packet netconsole sends
FLAGS = "-c+"  # a record; the fragment of a continued line; (older kernels) the fragments after the first

_HEADER = re.compile(
    rb"(?:(?P<release>[^,;]{0,63}\.[^,;]{0,63}),)?"
    rb"(?P<level>\d{1,4}),(?P<seq>\d{1,20}),(?P<usec>\d{1,20}),(?P<flag>[-c+])"
    rb"(?P<fields>(?:,[^,;=]+=[^,;]*)*);"
)
_FRAGMENT = re.compile(r"(\d{1,9})/(\d{1,9})")
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_UNPRINTABLE = re.compile(rb"[^ -\[\]-~]")  # msg_add_ext_text: c < ' ' || c >= 127 || c == '\\'


class FormatError(ValueError):
    """Not an extended netconsole packet; the text says which part."""


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the `;`. `fields` are the further key=value pairs, `ncfrag` taken out of them."""

    level: int  # facility << 3 | severity
    seq: int  # u64, counted by printk over all records
    usec: int  # since the sender booted
    flag: str = "-"
    release: str = ""  # uname -r of the sender, when its target has the `r` prefix
    fields: tuple[tuple[str, str], ...] = ()
    fragment: tuple[int, int] | None = None  # (offset, total) in bytes of the whole body

    @property
    def severity(self) -> int:
        """0 emergency .. 7 debug."""
        return self.level & 7

    @property
    def facility(self) -> int:
        """0 kernel; others when user space wrote to /dev/kmsg."""
        return self.level >> 3

    def emit(self) -> bytes:
        """The header without its `;`."""
        start = f"{self.release}," if self.release else ""
        pairs = "".join(f",{key}={value}" for key, value in self.fields)
        cut = f",ncfrag={self.fragment[0]}/{self.fragment[1]}" if self.fragment else ""
        return f"{start}{self.level},{self.seq},{self.usec},{self.flag}{pairs}{cut}".encode()


@dataclass(frozen=True, slots=True)
class Message:
    """One whole record: the text unescaped, its dictionary, userdata and sysdata lines as `pairs`, in order."""

    header: Header
    text: str
    pairs: tuple[tuple[str, str], ...] = ()
    fragments: int = 1

    @property
    def seq(self) -> int:
        """The header's sequence number."""
        return self.header.seq


def parse_packet(data: bytes) -> tuple[Header, bytes]:
    """Split one packet into header and body (text and pairs, or a slice of them). Raises FormatError."""
    match = _HEADER.match(data)
    if match is None:
        raise FormatError(f"no extended header in {data[:48]!r}")
    fields = [_pair(item) for item in match["fields"].decode("utf-8", "backslashreplace").split(",")[1:]]
    header = Header(
        level=int(match["level"]),
        seq=int(match["seq"]),
        usec=int(match["usec"]),
        flag=match["flag"].decode(),
        release=(match["release"] or b"").decode("utf-8", "backslashreplace"),
        fields=tuple(pair for pair in fields if pair[0] != "ncfrag"),
        fragment=_fragment([value for key, value in fields if key == "ncfrag"]),
    )
    if header.level > 2047 or header.seq >> 64 or header.usec >> 64:
        raise FormatError(f"level, sequence or time out of range in {match[0]!r}")
    return header, data[match.end() :]


def _pair(item: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    return key, value


def _fragment(values: list[str]) -> tuple[int, int] | None:
    if not values:
        return None
    match = _FRAGMENT.fullmatch(values[0])
    if match is None or len(values) > 1:
        raise FormatError(f"ncfrag={','.join(values)}")
    return int(match[1]), int(match[2])


def parse_body(header: Header, body: bytes, fragments: int = 1) -> Message:
    """Text up to the first newline, then one ` key=value` a line; a line of another form continues the value above."""
    first, *rest = body.removesuffix(b"\n").split(b"\n")
    pairs: list[tuple[str, str]] = []
    for line in rest:
        text = decode(line)
        if text.startswith(" ") and "=" in text:
            pairs.append(_pair(text[1:]))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]}\n{text}")
        else:
            pairs.append(("", text))
    return Message(header, decode(unescape(first)), tuple(pairs), fragments)


def decode(raw: bytes) -> str:
    r"""Bytes of a console as text: UTF-8, and `\xHH` for what is not."""
    return raw.decode("utf-8", "backslashreplace")


def unescape(text: bytes) -> bytes:
    r"""Undo msg_add_ext_text: `\xHH` becomes the byte."""
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text)


def escape(text: bytes) -> bytes:
    r"""As msg_add_ext_text: control characters, bytes from 127 on and the backslash become `\xHH`."""
    return _UNPRINTABLE.sub(lambda match: b"\\x%02x" % match[0][0], text)


def console_lines(message: Message, *, time: bool = True) -> list[str]:
    """The record as other consoles show it: each line with the prefix of `info_print_prefix`.

    `time` is the kernel's printk.time; a `caller` field (CONFIG_PRINTK_CALLER) is shown as the kernel does. Plain
    consoles cut a record at 1024 bytes, prefixes included, and newer kernels cut extended messages at 2048: only then do
    the two differ.
    """
    caller = dict(message.header.fields).get("caller", "")
    seconds, usec = divmod(message.header.usec, 1_000_000)
    prefix = (f"[{seconds:5d}.{usec:06d}]" if time else "") + (f"[{caller:>6}]" if caller else "")
    prefix += " " if prefix else ""
    return [prefix + line for line in message.text.split("\n")]
