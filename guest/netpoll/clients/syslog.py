"""Remote syslog: RFC 5424 and RFC 3164 messages, one a datagram (RFC 5426), written and read.

In: a `SyslogMessage`, or the bytes of a datagram. Out: the other one. The rule it keeps: what is emitted obeys the
grammar, or raises; what is parsed from the network is either understood by the grammar or `SyslogError`, except that RFC
3164 takes anything (its section 4.3): what has no header is all text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

PORT = 514
LIMIT_5424 = 2048  # RFC 5426 section 3.2: receivers SHOULD take 2048 bytes
LIMIT_3164 = 1024  # RFC 3164 section 4.1
DEFAULT_PRI = 13  # user.notice, for what came without one (RFC 3164 section 4.3.3)
BOM = b"\xef\xbb\xbf"

Element = tuple[str, tuple[tuple[str, str], ...]]
"""SD-ELEMENT: its SD-ID and (name, value) parameters."""


class SyslogError(ValueError):
    """A field that the grammar does not allow, or a datagram that is no syslog message."""


@dataclass(frozen=True, slots=True)
class SyslogMessage:
    """One message; an empty string is RFC 5424's NILVALUE. `timestamp` must know its zone."""

    text: str
    severity: int = 5  # 0 emergency .. 7 debug
    facility: int = 1  # 0 kernel, 1 user .. 23 local7
    timestamp: datetime | None = None
    hostname: str = ""
    app_name: str = ""  # RFC 3164: the tag
    procid: str = ""
    msgid: str = ""
    structured: tuple[Element, ...] = ()

    @property
    def pri(self) -> int:
        """facility * 8 + severity."""
        return self.facility * 8 + self.severity


_MAXIMA = {"hostname": 255, "app_name": 48, "procid": 128, "msgid": 32}  # RFC 5424 section 6
_PRINTABLE = re.compile(r"[!-~]+")
_SD_NAME = re.compile(r"[!#-<>-\\^-~]{1,32}")  # PRINTUSASCII but '=', ']' and '"'
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _check(message: SyslogMessage) -> None:
    if not (0 <= message.severity <= 7 and 0 <= message.facility <= 23):
        raise SyslogError(f"severity {message.severity} of 0..7, facility {message.facility} of 0..23")
    for name, maximum in _MAXIMA.items():
        value = getattr(message, name)
        if value and (len(value) > maximum or not _PRINTABLE.fullmatch(value)):
            raise SyslogError(f"{name} {value!r}: at most {maximum} printable ASCII characters, no space")
    if message.timestamp is not None and message.timestamp.utcoffset() is None:
        raise SyslogError(f"timestamp {message.timestamp} without a zone")


def cut(raw: bytes, limit: int) -> bytes:
    """At most `limit` bytes, without leaving half a UTF-8 character at the end (RFC 5424 section 6.1)."""
    if len(raw) <= limit:
        return raw
    while limit and raw[limit] & 0xC0 == 0x80:
        limit -= 1
    return raw[:limit]


def emit_5424(message: SyslogMessage, limit: int = LIMIT_5424) -> bytes:
    """`<PRI>1 TIMESTAMP HOST APP PROCID MSGID SD MSG`; the text is cut to the limit, the rest must fit.

    Raises SyslogError.
    """
    _check(message)
    stamp = message.timestamp.isoformat() if message.timestamp else "-"
    if stamp.endswith("+00:00"):
        stamp = stamp.removesuffix("+00:00") + "Z"
    fields = [getattr(message, name) or "-" for name in _MAXIMA]
    structured = "".join(map(_emit_element, message.structured)) or "-"
    header = " ".join([f"<{message.pri}>1 {stamp}", *fields, structured]).encode()
    if len(header) > limit:
        raise SyslogError(f"{len(header)} bytes before the text, the limit is {limit}")
    if not message.text:
        return header
    text = message.text.encode()
    return cut(header + b" " + (b"" if text.isascii() else BOM) + text, limit)


def _emit_element(element: Element) -> str:
    identity, parameters = element
    for name in (identity, *(name for name, _ in parameters)):
        if not _SD_NAME.fullmatch(name):
            raise SyslogError(f"structured data name {name!r}: 1..32 printable ASCII, not '=', ']', '\"'")
    pairs = "".join(f' {name}="{_escape_value(value)}"' for name, value in parameters)
    return f"[{identity}{pairs}]"


def _escape_value(value: str) -> str:
    return re.sub(r'([\\"\]])', r"\\\1", value)


def emit_3164(message: SyslogMessage, limit: int = LIMIT_3164) -> bytes:
    """`<PRI>Mmm dd hh:mm:ss HOST TAG[PID]: TEXT`, with the local time of the timestamp's own zone. Raises SyslogError.

    Without a timestamp, only `<PRI>TAG: TEXT`: a relay then fills in its own time and our address. The host is given
    only with a timestamp, as the format has it, and is needed then.
    """
    _check(message)
    if message.app_name and not re.fullmatch(r"[^\s:\[\]]{1,32}", message.app_name):
        raise SyslogError(f"tag {message.app_name!r}: 1..32 characters, no colon, bracket or space")
    header = ""
    if message.timestamp is not None:
        if not message.hostname:
            raise SyslogError("RFC 3164 has a host name after the timestamp, but it is empty")
        when = message.timestamp
        header = f"{_MONTHS[when.month - 1]} {when.day:2d} {when:%H:%M:%S} {message.hostname} "
    pid = f"[{message.procid}]" if message.procid else ""
    tag = f"{message.app_name}{pid}: " if message.app_name else ""
    return cut(f"<{message.pri}>{header}{tag}{message.text}".encode(), limit)


def emit_netlog(line: str, pri: int = 5) -> bytes:
    """The kernel's netlog of Red Hat's 2.4/2.6 kernels: `<5> ` before each line of console text, and nothing else."""
    return f"<{pri}> {line}".encode()


_HEADER = re.compile(
    rb"<(?P<pri>0|[1-9]\d{0,2})>1 (?P<time>-|\S+) (?P<hostname>[!-~]{1,255}) (?P<app_name>[!-~]{1,48}) "
    rb"(?P<procid>[!-~]{1,128}) (?P<msgid>[!-~]{1,32}) "
)
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:Z|[+-]\d{2}:\d{2})", re.ASCII)
_ELEMENT_ID = re.compile(rb"\[([!#-<>-\\^-~]{1,32})")
_PARAMETER = re.compile(rb' ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\.)*)"', re.DOTALL)


def parse_5424(data: bytes) -> SyslogMessage:
    """Parse strictly. A BOM is taken off the text. Raises SyslogError."""
    match = _HEADER.match(data)
    if match is None:
        raise SyslogError(f"no RFC 5424 header in {data[:60]!r}")
    facility, severity = _pri(match["pri"])
    structured, rest = _parse_structured(data[match.end() :])
    if rest and not rest.startswith(b" "):
        raise SyslogError(f"no space after the structured data: {rest[:20]!r}")
    fields = {name: _nil(match[name].decode()) for name in _MAXIMA}
    return SyslogMessage(
        text=rest[1:].removeprefix(BOM).decode("utf-8", "backslashreplace"),
        severity=severity,
        facility=facility,
        timestamp=_parse_timestamp(match["time"].decode("ascii", "replace")),
        structured=structured,
        **fields,
    )


def _nil(value: str) -> str:
    return "" if value == "-" else value


def _pri(digits: bytes) -> tuple[int, int]:
    pri = int(digits)
    if pri > 191:
        raise SyslogError(f"PRI {pri} is over 191")
    return pri // 8, pri % 8


def _parse_timestamp(text: str) -> datetime | None:
    if text == "-":
        return None
    if not _TIMESTAMP.fullmatch(text):
        raise SyslogError(f"timestamp {text!r}")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise SyslogError(f"timestamp {text!r}: {error}") from None


def _parse_structured(data: bytes) -> tuple[tuple[Element, ...], bytes]:
    """(elements, rest) of `-` or `[id name="value" ...]...`."""
    if data.startswith(b"-"):
        return (), data[1:]
    elements: list[Element] = []
    while identity := _ELEMENT_ID.match(data):
        data = data[identity.end() :]
        parameters: list[tuple[str, str]] = []
        while parameter := _PARAMETER.match(data):
            data = data[parameter.end() :]
            parameters.append((parameter[1].decode(), _unescape_value(parameter[2])))
        if not data.startswith(b"]"):
            raise SyslogError(f"structured data broken at {data[:20]!r}")
        data = data[1:]
        elements.append((identity[1].decode(), tuple(parameters)))
    if not elements:
        raise SyslogError(f"no structured data at {data[:20]!r}")
    return tuple(elements), data


def _unescape_value(raw: bytes) -> str:
    return re.sub(rb'\\([\\"\]])', rb"\1", raw).decode("utf-8", "backslashreplace")


_PRI = re.compile(rb"<(0|[1-9]\d{0,2})>")
_OLD_HEADER = re.compile(
    r"(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (?P<day>[ 0-3]\d) "
    r"(?P<hour>\d{2}):(?P<minute>\d{2}):(?P<second>\d{2}) (?P<host>\S{1,255}) ?",
    re.ASCII,
)
_TAG = re.compile(r"(?P<tag>[^\s:\[\]]{1,48})(?:\[(?P<pid>[^\]\s]{1,128})\])?: ?")


def parse_3164(data: bytes, now: datetime) -> SyslogMessage:
    """Parse what there is: PRI, header and tag are each optional, all else is text. No data raises.

    `now` gives the year and zone that the format leaves out: the year that brings the time nearest to it. Raises
    ValueError when it has no zone.
    """
    if now.utcoffset() is None:
        raise ValueError(f"now is {now}, without a zone")
    facility, severity, data = _old_pri(data)
    text = data.decode("utf-8", "backslashreplace")
    header = _OLD_HEADER.match(text)
    when = _nearest(header, now) if header else None
    host = ""
    if header and when:
        host, text = header["host"], text[header.end() :]
    tag = _TAG.match(text)
    if tag:
        text = text[tag.end() :]
    return SyslogMessage(
        text=text,
        severity=severity,
        facility=facility,
        timestamp=when,
        hostname=host,
        app_name=tag["tag"] if tag else "",
        procid=(tag["pid"] or "") if tag else "",
    )


def _old_pri(data: bytes) -> tuple[int, int, bytes]:
    match = _PRI.match(data)
    if match is None or int(match[1]) > 191:
        return DEFAULT_PRI // 8, DEFAULT_PRI % 8, data
    return int(match[1]) // 8, int(match[1]) % 8, data[match.end() :]


def _nearest(header: re.Match[str], now: datetime) -> datetime | None:
    day, hour, minute, second = (int(header[name]) for name in ("day", "hour", "minute", "second"))
    month = _MONTHS.index(header["month"]) + 1
    found: list[datetime] = []
    for year in (now.year - 1, now.year, now.year + 1):
        try:
            found.append(datetime(year, month, day, hour, minute, second, tzinfo=now.tzinfo))
        except ValueError:  # no such day or hour in this year
            continue
    return min(found, key=lambda when: abs(when - now), default=None)


def parse(data: bytes, now: datetime) -> SyslogMessage:
    """Either format: RFC 5424 by its version number, all else as RFC 3164. Raises SyslogError for a broken RFC 5424."""
    if re.match(rb"<\d{1,3}>1 ", data):
        return parse_5424(data)
    return parse_3164(data, now)
