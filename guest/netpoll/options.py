"""netpoll_parse_options(): `[srcport]@[srcip]/[dev],[tgtport]@<tgtip>/[tgtmac]`.

In: a string. Out: Options, each field None where the string left it open; netpoll_parse_options() puts
what was given into a Netpoll and leaves its presets else. The one rule: all or nothing, so a string with
an error changes no field (the kernel of 2.6.12 kept what it had parsed before the error).

Addresses are IPv4 or IPv6, both of one family. Ports are decimal, 0 to 65535. A device name has 1 to 15
octets, none of them NUL, white space, `/` or `:`. The target address is the one field that must be given;
0.0.0.0 or :: stands for "any peer" in a client that only receives.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from guest.netpoll.errors import OptionError
from guest.netpoll.netdevice import IFNAMSIZ, IPAddress, dev_valid_name
from guest.netpoll.wire import ethernet

if TYPE_CHECKING:
    from guest.netpoll.core import Netpoll

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What an option string says; None means "keep the preset"."""

    remote_ip: IPAddress
    local_port: int | None = None
    local_ip: IPAddress | None = None
    dev_name: str | None = None
    remote_port: int | None = None
    remote_mac: bytes | None = None


class _Scanner:
    """A position in the option string; take() moves it past one field."""

    def __init__(self, opt: str) -> None:
        self.opt = opt
        self.at = 0

    def take(self, what: str, until: str, convert: Callable[[str], T]) -> T | None:
        """The field up to `until` (to the end if that is ""), converted; None if it is empty."""
        end = self.opt.find(until, self.at) if until else len(self.opt)
        if end < 0:
            raise OptionError(self.opt, self.at + 1, f"{what} must be followed by {until!r}")
        text, column = self.opt[self.at : end], self.at + 1
        self.at = end + len(until)
        if not text:
            return None
        try:
            return convert(text)
        except ValueError as error:
            raise OptionError(self.opt, column, f"{what}: {error}") from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:6]) > 0xFFFF or len(text) > 5:
        raise ValueError(f"{text!r} is not a decimal number from 0 to 65535")
    return int(text)


def _address(text: str) -> IPAddress:
    if "%" in text:
        raise ValueError(f"{text!r}: the device is named by its own field, not by a zone")
    return ipaddress.ip_address(text)


def _dev_name(text: str) -> str:
    if not dev_valid_name(text):
        raise ValueError(f"{text!r} is not a device name (1 to {IFNAMSIZ - 1} octets, no NUL, space, '/', ':')")
    return text


def parse(opt: str) -> Options:
    """Parse an option string; raises OptionError, which says where and why."""
    scan = _Scanner(opt)
    local_port = scan.take("source port", "@", _port)
    local_ip = scan.take("source address", "/", _address)
    dev_name = scan.take("device", ",", _dev_name)
    remote_port = scan.take("target port", "@", _port)
    column = scan.at + 1
    remote_ip = scan.take("target address", "/", _address)
    if remote_ip is None:
        raise OptionError(opt, column, "the target address must be given")
    if local_ip is not None and local_ip.version != remote_ip.version:
        raise OptionError(opt, column, f"{remote_ip} and {local_ip} are not of one family")
    remote_mac = scan.take("target MAC address", "", ethernet.parse_mac)
    return Options(remote_ip, local_port, local_ip, dev_name, remote_port, remote_mac)


def netpoll_parse_options(np: Netpoll, opt: str) -> None:
    """Fill `np` from `opt`; fields not given keep their presets. Raises OptionError, `np` then unchanged."""
    options = parse(opt)
    preset = np.local_ip
    if options.local_ip is None and preset is not None and preset.version != options.remote_ip.version:
        raise OptionError(opt, opt.rindex("@") + 2, f"preset source address {preset} is of the other family")
    np.remote_ip = options.remote_ip
    for field in ("local_port", "local_ip", "dev_name", "remote_port", "remote_mac"):
        value = getattr(options, field)
        if value is not None:
            setattr(np, field, value)
