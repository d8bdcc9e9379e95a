"""The 82540EM's layout against bytes and numbers spelled out from the Software Developer's Manual, since a layout that driver and
model share hides a mistake from both."""

from __future__ import annotations

import struct

import pytest

from guest.netpoll.layout import e1000 as hw
from guest.netpoll.layout.e1000 import Ctrl, Int, Rctl, Reg, RxError, RxStatus, Status, Tctl, TxCmd, TxSta

ADDRESS = 0x0102030405060708

# table 13-2, by category
OFFSETS = {
    "general": {"CTRL": 0x0, "STATUS": 0x8, "EECD": 0x10, "EERD": 0x14, "CTRL_EXT": 0x18, "MDIC": 0x20},
    "flow control": {"FCAL": 0x28, "FCAH": 0x2C, "FCT": 0x30, "FCTTV": 0x170, "FCRTL": 0x2160, "FCRTH": 0x2168},
    "interrupt": {"ICR": 0xC0, "ITR": 0xC4, "ICS": 0xC8, "IMS": 0xD0, "IMC": 0xD8},
    "receive": {"RCTL": 0x100, "RDBAL": 0x2800, "RDBAH": 0x2804, "RDLEN": 0x2808, "RDH": 0x2810, "RDT": 0x2818}
    | {"RDTR": 0x2820, "RXDCTL": 0x2828, "RADV": 0x282C, "RSRPD": 0x2C00, "RXCSUM": 0x5000},
    "transmit": {"TCTL": 0x400, "TIPG": 0x410, "AIFS": 0x458, "TXDMAC": 0x3000, "TDBAL": 0x3800, "TDBAH": 0x3804}
    | {
        "TDLEN": 0x3808,
        "TDH": 0x3810,
        "TDT": 0x3818,
        "TIDV": 0x3820,
        "TXDCTL": 0x3828,
        "TADV": 0x382C,
        "TSPMT": 0x3830,
    },
    "filters": {"MTA": 0x5200, "RAL": 0x5400, "RAH": 0x5404, "VFTA": 0x5600},
    "statistics": {"CRCERRS": 0x4000, "MPC": 0x4010, "GPRC": 0x4074, "GPTC": 0x4080, "TPR": 0x40D0, "TPT": 0x40D4}
    | {"TORL": 0x40C0, "TOTL": 0x40C8, "RNBC": 0x40A0, "ROC": 0x40AC, "TSCTFC": 0x40FC},
}


@pytest.mark.parametrize("category", OFFSETS)
def test_registers_are_where_the_manual_has_them(category: str) -> None:
    for name, offset in OFFSETS[category].items():
        assert Reg[name] == offset, name


@pytest.mark.parametrize(
    ("packed", "octets"),
    [
        pytest.param(
            hw.TX_LEGACY.pack(ADDRESS, 60, 0, TxCmd.EOP | TxCmd.IFCS | TxCmd.RS, 0, 0, 0),
            "0807060504030201 3c00 00 0b 00 00 0000",
            id="transmit, legacy: 60 bytes, EOP IFCS RS",
        ),
        pytest.param(
            hw.TX_LEGACY.pack(0, 1514, 0x1E, 0x4F, 0x01, 0x0E, 0xABCD),
            "0000000000000000 ea05 1e 4f 01 0e cdab",
            id="transmit, legacy: every field",
        ),
        pytest.param(
            hw.TX_CONTEXT.pack(14, 24, 33, 34, 50, 0, 0x27000000 | 2920, 0, 54, 1460),
            "0e 18 2100 22 32 0000 680b0027 00 36 b405",
            id="transmit, context: TCP over IPv4, segmentation",
        ),
        pytest.param(
            hw.TX_DATA.pack(ADDRESS, 2974 | 1 << 20 | 0x2F << 24, 0, 0x3, 0),
            "0807060504030201 9e0b10 2f 00 03 0000",
            id="transmit, data: its kind, TSE and both checksums",
        ),
        pytest.param(
            hw.RX_LEGACY.pack(ADDRESS, 64, 0x1234, RxStatus.DD | RxStatus.EOP, RxError.CE, 0x5678),
            "0807060504030201 4000 3412 03 01 7856",
            id="receive: 64 bytes, whole, bad FCS",
        ),
    ],
)
def test_descriptors_by_the_byte(packed: bytes, octets: str) -> None:
    assert packed == bytes.fromhex(octets)
    assert len(packed) == 16


def test_the_fields_that_are_stored_alone_are_where_the_structs_have_them() -> None:
    assert hw.TX_LEGACY.pack(0, 0, 0, 0xAA, 0xBB, 0, 0)[hw.TX_CMD_OFFSET : hw.TX_STA_OFFSET + 1] == b"\xaa\xbb"
    assert struct.unpack_from("<H", hw.RX_LEGACY.pack(0, 0x1234, 0, 0, 0, 0), hw.RX_LENGTH_OFFSET) == (0x1234,)
    assert hw.RX_LEGACY.pack(0, 0, 0, 0xCC, 0, 0)[hw.RX_STATUS_OFFSET] == 0xCC


@pytest.mark.parametrize(
    ("bits", "value"),
    [
        pytest.param(Ctrl.RST, 0x04000000, id="CTRL.RST"),
        pytest.param(Ctrl.SLU | Ctrl.ASDE | Ctrl.FD, 0x61, id="CTRL: FD ASDE SLU"),
        pytest.param(Status.FD | Status.LU | Status.SPEED_1000, 0x83, id="STATUS: 1000 Mb/s, full duplex, link"),
        pytest.param(Int.TXDW | Int.LSC | Int.RXDMT0 | Int.RXO | Int.RXT0, 0xD5, id="causes"),
        pytest.param(Rctl.EN | Rctl.UPE | Rctl.MPE | Rctl.BAM | Rctl.SECRC, 0x0400801A, id="RCTL"),
        pytest.param(Tctl.EN | Tctl.PSP | 0x0F << hw.TCTL_CT_SHIFT | 0x40 << hw.TCTL_COLD_SHIFT, 0x400FA, id="TCTL"),
        pytest.param(8 | 8 << hw.TIPG_IPGR1_SHIFT | 6 << hw.TIPG_IPGR2_SHIFT, 0x602008, id="TIPG of 13.4.34"),
        pytest.param(TxSta.DD | TxSta.EC | TxSta.LC, 7, id="STA"),
        pytest.param(hw.RX_FRAME_ERRORS, 0x97, id="receive errors"),
    ],
)
def test_bits_are_the_manuals(bits: int, value: int) -> None:
    assert int(bits) == value


@pytest.mark.parametrize(("mo", "bit"), [(0, 0x563), (1, 0xAC6), (2, 0x58D), (3, 0x634)])
def test_the_manuals_multicast_address_falls_on_the_manuals_bits(mo: int, bit: int) -> None:
    """13.5.1's example, 12:AA:00:12:34:56: the bits that each offset picks of 5634h."""
    assert hw.hash_bit(bytes.fromhex("12aa00123456"), mo) == bit
