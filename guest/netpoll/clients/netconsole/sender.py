"""The sending side of netconsole: records of a log into the packets that the kernel's netconsole would send.

In: `Record`s. Out: UDP payloads of at most MAX_CHUNK bytes, for `netpoll_send_udp`. The rule it keeps: a receiver cannot
tell these packets from a kernel's (`send_msg_udp`, `send_ext_msg_udp`, `send_fragmented_body`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from guest.netpoll.clients.netconsole.message import MAX_CHUNK, Header, Message, console_lines, escape

MAX_KEY = 53  # MAX_USERDATA_KEY_LENGTH less its NUL
MAX_VALUE = 200  # MAX_EXTRADATA_VALUE_LEN
MAX_ITEMS = 256  # MAX_USERDATA_ITEMS; 16 in older kernels
DEBUG_TOO = 8  # console_loglevel that lets every severity out


@dataclass(frozen=True, slots=True)
class Sysdata:
    """Which of the kernel's own values are added to each message; a Record brings cpu and taskname."""

    cpu: bool = False
    taskname: bool = False
    release: bool = False
    msgid: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """One netconsole target. Raises ValueError for what configfs would refuse.

    `prefix_release` is the `r` of the option string and needs `extended`, as userdata and sysdata do. Only records of a
    severity below `console_loglevel` are sent, as printk filters.
    """

    extended: bool = False
    prefix_release: bool = False
    release: str = ""  # uname -r
    userdata: tuple[tuple[str, str], ...] = ()
    sysdata: Sysdata = field(default_factory=Sysdata)
    console_loglevel: int = DEBUG_TOO
    printk_time: bool = True  # plain packets only: the [seconds.micros] prefix

    def __post_init__(self) -> None:
        if not self.extended and (self.prefix_release or self.userdata or self.sysdata != Sysdata()):
            raise ValueError("release, userdata and sysdata exist in extended messages only")
        if (self.prefix_release or self.sysdata.release) and not self.release:
            raise ValueError("the release is to be sent but is empty")
        if len(self.release.encode()) > 64 or set(self.release) & set(",;\n"):
            raise ValueError(f"release {self.release!r}: at most 64 bytes, without comma, semicolon, newline")
        if len(self.userdata) > MAX_ITEMS:
            raise ValueError(f"{len(self.userdata)} userdata items, at most {MAX_ITEMS}")
        for key, value in self.userdata:
            _check_userdata(key, value)


def _check_userdata(key: str, value: str) -> None:
    if not 0 < len(key.encode()) <= MAX_KEY or set(key) & set("=\n/"):
        raise ValueError(f"userdata key {key!r}: 1..{MAX_KEY} bytes, without '=', '/' and newline")
    if len(value.encode()) >= MAX_VALUE or "\n" in value:
        raise ValueError(f"userdata value of {key!r}: under {MAX_VALUE} bytes, without newline")


@dataclass(frozen=True, slots=True)
class Record:
    """One printk record. `text` has no final newline; `usec` is since boot; `pairs` is its dictionary (DEVICE=...)."""

    text: str
    usec: int
    severity: int = 6
    facility: int = 0
    flag: str = "-"
    caller: str = ""  # T<pid> or C<cpu>, with CONFIG_PRINTK_CALLER
    pairs: tuple[tuple[str, str], ...] = ()
    cpu: int = 0
    taskname: str = "swapper/0"

    def __post_init__(self) -> None:
        if not (0 <= self.severity <= 7 and 0 <= self.facility <= 255):
            raise ValueError(f"severity {self.severity} of 0..7, facility {self.facility} of 0..255")
        if self.flag not in ("-", "c", "+") or not 0 <= self.usec < 1 << 64:
            raise ValueError(f"flag {self.flag!r}, usec {self.usec}")


class Sender:
    """Numbers records and cuts them into packets. Filtered records use a number up, as in the kernel's log."""

    def __init__(self, target: Target, first_seq: int = 0) -> None:
        self.target = target
        self.next_seq = first_seq
        self._msgid = 0

    def packets(self, record: Record) -> list[bytes]:
        """The payloads of one record; none when the level filter holds it back."""
        seq = self.next_seq
        self.next_seq = (seq + 1) & (1 << 64) - 1
        if record.severity >= self.target.console_loglevel:
            return []
        if self.target.extended:
            return self._extended(record, seq)
        return plain_packets(record, seq, time=self.target.printk_time)

    def _extended(self, record: Record, seq: int) -> list[bytes]:
        header = Header(
            level=record.facility << 3 | record.severity,
            seq=seq,
            usec=record.usec,
            flag=record.flag,
            release=self.target.release if self.target.prefix_release else "",
            fields=(("caller", record.caller),) if record.caller else (),
        ).emit()
        body = _record_body(record) + self._userdata() + self._sysdata(record)
        if len(header) + 1 + len(body) <= MAX_CHUNK:
            return [header + b";" + body]
        return list(fragments(header, body))

    def _userdata(self) -> bytes:
        return "".join(f" {key}={value}\n" for key, value in self.target.userdata).encode()

    def _sysdata(self, record: Record) -> bytes:
        wanted = self.target.sysdata
        if wanted.msgid:
            self._msgid = (self._msgid + 1) & 0xFFFFFFFF  # counts messages, not fragments; the first is 1
        lines = [
            (wanted.cpu, f" cpu={record.cpu}\n"),
            (wanted.taskname, f" taskname={record.taskname}\n"),
            (wanted.release, f" release={self.target.release}\n"),
            (wanted.msgid, f" msgid={self._msgid}\n"),
        ]
        return "".join(line for enabled, line in lines if enabled).encode()


def plain_packets(record: Record, seq: int = 0, *, time: bool = True) -> list[bytes]:
    """The console text of a record, cut every MAX_CHUNK bytes wherever that falls (`send_msg_udp`)."""
    fields = (("caller", record.caller),) if record.caller else ()
    message = Message(Header(record.severity, seq, record.usec, fields=fields), record.text)
    text = "".join(line + "\n" for line in console_lines(message, time=time)).encode()
    return [text[at : at + MAX_CHUNK] for at in range(0, len(text), MAX_CHUNK)]


def fragments(header: bytes, body: bytes) -> Iterator[bytes]:
    """Cut a body under `header` (without `;`) into packets that are full but for the last (`send_fragmented_body`).

    Raises ValueError when the header leaves no room.
    """
    offset = 0
    while offset < len(body):
        head = header + f",ncfrag={offset}/{len(body)};".encode()
        room = MAX_CHUNK - len(head)
        if room <= 0:
            raise ValueError(f"a header of {len(head)} bytes leaves no room in a packet of {MAX_CHUNK}")
        yield head + body[offset : offset + room]
        offset += room


def _record_body(record: Record) -> bytes:
    pairs = b"".join(b" " + escape(key.encode()) + b"=" + escape(value.encode()) + b"\n" for key, value in record.pairs)
    return escape(record.text.encode()) + b"\n" + pairs
