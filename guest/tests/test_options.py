"""netpoll_parse_options(): every field, every default, every error with its place."""

import ipaddress

import pytest

from guest.netpoll import Net, Netpoll, OptionError, netpoll_parse_options
from guest.netpoll.options import Options, parse

MAC = bytes.fromhex("525400123456")
A, B = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.0.0.2")
SIX_A, SIX_B = ipaddress.ip_address("fd00::1"), ipaddress.ip_address("fd00::2")

GOOD = {
    "@/,@10.0.0.2/": Options(B),
    "1@/,@10.0.0.2/": Options(B, local_port=1),
    "@10.0.0.1/,@10.0.0.2/": Options(B, local_ip=A),
    "@/eth1,@10.0.0.2/": Options(B, dev_name="eth1"),
    "@/,2@10.0.0.2/": Options(B, remote_port=2),
    "@/,@10.0.0.2/52:54:00:12:34:56": Options(B, remote_mac=MAC),
    "6665@10.0.0.1/eth0,6666@10.0.0.2/52:54:00:12:34:56": Options(B, 6665, A, "eth0", 6666, MAC),
    "65535@/bond0.100,0@10.0.0.2/": Options(B, local_port=65535, dev_name="bond0.100", remote_port=0),
    "@fd00::1/,@fd00::2/": Options(SIX_B, local_ip=SIX_A),
    "@/fifteencharname,@fd00::2/2:0:0:0:0:1": Options(SIX_B, dev_name="fifteencharname", remote_mac=b"\2\0\0\0\0\1"),
    "@/,@0.0.0.0/": Options(ipaddress.ip_address(0)),
}


@pytest.mark.parametrize("opt", GOOD)
def test_parse(opt: str) -> None:
    assert parse(opt) == GOOD[opt]


BAD = [
    ("", 1, "source port must be followed by '@'"),
    ("6665", 1, "source port must be followed by '@'"),
    ("@", 2, "source address must be followed by '/'"),
    ("@10.0.0.1", 2, "source address must be followed by '/'"),
    ("@/eth0", 3, "device must be followed by ','"),
    ("@/,6666", 4, "target port must be followed by '@'"),
    ("@/,@10.0.0.2", 5, "target address must be followed by '/'"),
    ("@/,@/", 5, "the target address must be given"),
    ("x@/,@10.0.0.2/", 1, "'x' is not a decimal number"),
    ("65536@/,@10.0.0.2/", 1, "'65536' is not a decimal number from 0 to 65535"),
    ("-1@/,@10.0.0.2/", 1, "'-1' is not"),
    ("0x10@/,@10.0.0.2/", 1, "'0x10' is not"),
    ("1 @/,@10.0.0.2/", 1, "'1 ' is not"),
    ("٣@/,@10.0.0.2/", 1, "is not a decimal number"),
    ("@/,99999999999999999999@10.0.0.2/", 4, "is not a decimal number"),
    ("@10.0.0/,@10.0.0.2/", 2, "source address: '10.0.0' does not appear to be an IPv4 or IPv6 address"),
    ("@10.0.0.256/,@10.0.0.2/", 2, "source address"),
    ("@/,@10.0.0.02/", 5, "target address"),
    ("@/,@host/", 5, "target address: 'host' does not appear"),
    ("@/,@fe80::1%eth0/", 5, "not by a zone"),
    ("@10.0.0.1/,@fd00::2/", 13, "not of one family"),
    ("@/sixteencharacter,@10.0.0.2/", 3, "is not a device name"),
    ("@/eth 0,@10.0.0.2/", 3, "is not a device name"),
    ("@/..,@10.0.0.2/", 3, "is not a device name"),
    ("@/eth\0,@10.0.0.2/", 3, "is not a device name"),
    ("@/eth\ud800,@10.0.0.2/", 3, "is not a device name"),
    ("@/\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4,@10.0.0.2/", 3, "is not a device name"),  # 16 octets
    ("@/,@10.0.0.2/52:54:00:12:34", 14, "target MAC address: MAC address '52:54:00:12:34'"),
    ("@/,@10.0.0.2/52:54:00:12:34:5g", 14, "target MAC address"),
    ("@/,@10.0.0.2/52:54:00:12:34:56 ", 14, "target MAC address"),
]


@pytest.mark.parametrize(("opt", "column", "why"), BAD, ids=[repr(b[0]) for b in BAD])
def test_parse_error_says_where_and_why(opt: str, column: int, why: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(opt)
    assert caught.value.column == column
    assert caught.value.rest == opt[column - 1 :]
    assert why in str(caught.value)
    assert "couldn't parse config at" in str(caught.value)


def preset() -> Netpoll:
    return Netpoll(Net(), "test", local_port=1, remote_port=2, dev_name="tap7", remote_mac=MAC, local_ip=A)


def fields(np: Netpoll) -> tuple[object, ...]:
    return (np.local_port, np.local_ip, np.dev_name, np.remote_port, np.remote_ip, np.remote_mac)


def test_fields_not_given_keep_the_presets() -> None:
    np = preset()
    netpoll_parse_options(np, "@/,@10.0.0.2/")
    assert fields(np) == (1, A, "tap7", 2, B, MAC)


def test_fields_given_replace_the_presets() -> None:
    np = preset()
    netpoll_parse_options(np, "3@10.0.0.9/eth3,4@10.0.0.2/2:0:0:0:0:1")
    assert fields(np) == (3, ipaddress.ip_address("10.0.0.9"), "eth3", 4, B, b"\2\0\0\0\0\1")


def test_an_error_changes_nothing() -> None:
    """2.6.12 kept the fields that it had parsed before the error."""
    np = preset()
    before = fields(np)
    with pytest.raises(OptionError):
        netpoll_parse_options(np, "3@10.0.0.9/eth3,4@10.0.0.2/nonsense")
    assert fields(np) == before


def test_preset_address_of_the_other_family_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"preset source address 10\.0\.0\.1 is of the other family"):
        netpoll_parse_options(preset(), "@/,@fd00::2/")


def test_struct_netpoll_has_the_fields_of_the_slides() -> None:
    """Slide "Client Data Structure". dev is None and the rest the caller's until netpoll_setup()."""
    np = Netpoll(Net(), "console")
    names = "dev dev_name name rx_hook drop local_ip remote_ip local_port remote_port local_mac remote_mac"
    values = [getattr(np, name) for name in names.split()]
    assert values == [None, "eth0", "console", None, None, None, None, 6665, 6666, bytes(6), b"\xff" * 6]


def test_defaults_are_netconsoles() -> None:
    np = Netpoll(Net())
    assert fields(np) == (6665, None, "eth0", 6666, None, b"\xff" * 6)
