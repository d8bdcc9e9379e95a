"""Intel 82540EM: registers, descriptors, EEPROM and PHY as far as drivers of ours and Linux' e1000 use them.

Names: *PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual* (317453), "the manual" below: chapter 3
descriptors, 5 EEPROM, 13 registers. Registers are 32 bits wide and little-endian, as are the fields of descriptors.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

VENDOR, DEVICE = 0x8086, 0x100E
BAR_SIZE = 128 << 10
EEPROM_SIZE_WORDS = 64
EEPROM_SUM = 0xBABA  # what the words 00h to 3Fh add up to (5.6.35)


class Reg(IntEnum):
    """Offsets in BAR 0 (table 13-2)."""

    CTRL = 0x00000
    STATUS = 0x00008
    EECD = 0x00010
    EERD = 0x00014
    CTRL_EXT = 0x00018
    MDIC = 0x00020
    FCAL = 0x00028
    FCAH = 0x0002C
    FCT = 0x00030
    VET = 0x00038
    # interrupts
    ICR = 0x000C0
    ITR = 0x000C4
    ICS = 0x000C8
    IMS = 0x000D0
    IMC = 0x000D8
    # receive, transmit
    RCTL = 0x00100
    FCTTV = 0x00170
    TXCW = 0x00178
    RXCW = 0x00180
    TCTL = 0x00400
    TIPG = 0x00410
    AIFS = 0x00458
    LEDCTL = 0x00E00
    PBA = 0x01000
    FCRTL = 0x02160
    FCRTH = 0x02168
    RDBAL = 0x02800
    RDBAH = 0x02804
    RDLEN = 0x02808
    RDH = 0x02810
    RDT = 0x02818
    RDTR = 0x02820
    RXDCTL = 0x02828
    RADV = 0x0282C
    RSRPD = 0x02C00
    TXDMAC = 0x03000
    TDBAL = 0x03800
    TDBAH = 0x03804
    TDLEN = 0x03808
    TDH = 0x03810
    TDT = 0x03818
    TIDV = 0x03820
    TXDCTL = 0x03828
    TADV = 0x0382C
    TSPMT = 0x03830
    # statistics: read, and clear
    CRCERRS = 0x04000
    ALGNERRC = 0x04004
    SYMERRS = 0x04008
    RXERRC = 0x0400C
    MPC = 0x04010
    SCC = 0x04014
    ECOL = 0x04018
    MCC = 0x0401C
    LATECOL = 0x04020
    COLC = 0x04028
    DC = 0x04030
    TNCRS = 0x04034
    SEC = 0x04038
    CEXTERR = 0x0403C
    RLEC = 0x04040
    XONRXC = 0x04048
    XONTXC = 0x0404C
    XOFFRXC = 0x04050
    XOFFTXC = 0x04054
    FCRUC = 0x04058
    PRC64 = 0x0405C
    PRC127 = 0x04060
    PRC255 = 0x04064
    PRC511 = 0x04068
    PRC1023 = 0x0406C
    PRC1522 = 0x04070
    GPRC = 0x04074
    BPRC = 0x04078
    MPRC = 0x0407C
    GPTC = 0x04080
    GORCL = 0x04088
    GORCH = 0x0408C
    GOTCL = 0x04090
    GOTCH = 0x04094
    RNBC = 0x040A0
    RUC = 0x040A4
    RFC = 0x040A8
    ROC = 0x040AC
    RJC = 0x040B0
    MGTPRC = 0x040B4
    MGTPDC = 0x040B8
    MGTPTC = 0x040BC
    TORL = 0x040C0
    TORH = 0x040C4
    TOTL = 0x040C8
    TOTH = 0x040CC
    TPR = 0x040D0
    TPT = 0x040D4
    PTC64 = 0x040D8
    PTC127 = 0x040DC
    PTC255 = 0x040E0
    PTC511 = 0x040E4
    PTC1023 = 0x040E8
    PTC1522 = 0x040EC
    MPTC = 0x040F0
    BPTC = 0x040F4
    TSCTC = 0x040F8
    TSCTFC = 0x040FC
    # filters
    RXCSUM = 0x05000
    MTA = 0x05200
    RAL = 0x05400
    RAH = 0x05404
    VFTA = 0x05600
    WUC = 0x05800
    WUFC = 0x05808
    WUS = 0x05810
    MANC = 0x05820
    IPAV = 0x05838


STATISTICS = range(0x04000, 0x04100, 4)
MTA_WORDS = VFTA_WORDS = 128
RECEIVE_ADDRESSES = 16  # RAL(n) and RAH(n) are 8 n further


class Ctrl(IntFlag):
    FD = 1 << 0
    LRST = 1 << 3
    ASDE = 1 << 5
    SLU = 1 << 6
    ILOS = 1 << 7
    SPEED_1000 = 0b10 << 8
    FRCSPD = 1 << 11
    FRCDPLX = 1 << 12
    RST = 1 << 26
    RFCE = 1 << 27
    TFCE = 1 << 28
    VME = 1 << 30
    PHY_RST = 1 << 31


class Status(IntFlag):
    FD = 1 << 0
    LU = 1 << 1
    TXOFF = 1 << 4
    TBIMODE = 1 << 5
    SPEED_1000 = 0b10 << 6
    ASDV_1000 = 0b10 << 8
    PCI66 = 1 << 11
    BUS64 = 1 << 12
    PCIX_MODE = 1 << 13


class Eecd(IntFlag):
    SK = 1 << 0
    CS = 1 << 1
    DI = 1 << 2
    DO = 1 << 3
    FWE = 0b11 << 4
    EE_REQ = 1 << 6
    EE_GNT = 1 << 7
    EE_PRES = 1 << 8
    EE_SIZE = 1 << 9


class Eerd(IntFlag):
    START = 1 << 0
    DONE = 1 << 4


EERD_ADDR_SHIFT, EERD_DATA_SHIFT = 8, 16
MICROWIRE_READ, MICROWIRE_ADDRESS_BITS = 0b110, 6  # start bit and opcode; 8 bits of address where EECD.EE_SIZE is set


class Mdic(IntFlag):
    OP_WRITE = 0b01 << 26
    OP_READ = 0b10 << 26
    R = 1 << 28  # ready
    I = 1 << 29  # noqa: E741  # the manual's name: interrupt when ready
    E = 1 << 30  # error


MDIC_REG_SHIFT, MDIC_PHY_SHIFT = 16, 21


class Int(IntFlag):
    """Interrupt causes: of ICR, ICS, IMS and IMC (13.4.17)."""

    TXDW = 1 << 0
    TXQE = 1 << 1
    LSC = 1 << 2
    RXSEQ = 1 << 3
    RXDMT0 = 1 << 4
    RXO = 1 << 6
    RXT0 = 1 << 7
    MDAC = 1 << 9
    RXCFG = 1 << 10
    PHYINT = 1 << 12
    TXD_LOW = 1 << 15
    SRPD = 1 << 16


INT_ASSERTED = 1 << 31  # of ICR, on the later chips of the family; reserved on this one


class Rctl(IntFlag):
    EN = 1 << 1
    SBP = 1 << 2
    UPE = 1 << 3
    MPE = 1 << 4
    LPE = 1 << 5
    LBM = 0b11 << 6
    RDMTS = 0b11 << 8
    MO = 0b11 << 12
    BAM = 1 << 15
    BSIZE = 0b11 << 16
    VFE = 1 << 18
    CFIEN = 1 << 19
    CFI = 1 << 20
    DPF = 1 << 22
    PMCF = 1 << 23
    BSEX = 1 << 25
    SECRC = 1 << 26


LBM_MAC = 0b01 << 6  # loopback inside the MAC
RDMTS_SHIFT, MO_SHIFT, BSIZE_SHIFT = 8, 12, 16
BUFFER_SIZES = (2048, 1024, 512, 256)  # by RCTL.BSIZE; sixteen times as much with BSEX, where 00b is reserved
LONGEST_FRAME = 1522  # without LPE, FCS included (RCTL.LPE)
MTA_SHIFTS = (4, 3, 2, 0)  # by RCTL.MO: where the twelve bits of the destination's last two octets begin, see hash_bit


class Tctl(IntFlag):
    EN = 1 << 1
    PSP = 1 << 3
    SWXOFF = 1 << 22
    RTLC = 1 << 24


TCTL_CT_SHIFT, TCTL_COLD_SHIFT = 4, 12
TIPG_IPGR1_SHIFT, TIPG_IPGR2_SHIFT = 10, 20


class Txdctl(IntFlag):
    PTHRESH = 0x3F
    HTHRESH = 0x3F << 8
    WTHRESH = 0x3F << 16
    GRAN = 1 << 24
    LWTHRESH = 0x7F << 25


class Rxcsum(IntFlag):
    PCSS = 0xFF
    IPOFL = 1 << 8
    TUOFL = 1 << 9


RAH_AV = 1 << 31


# -- transmit descriptors (3.3) ---------------------------------------------------------------------------------------

TX_LEGACY = struct.Struct("<QHBBBBH")  # buffer address, length, CSO, CMD, STA, CSS, special
TX_CONTEXT = struct.Struct(
    "<BBHBBHIBBH"
)  # IPCSS, IPCSO, IPCSE, TUCSS, TUCSO, TUCSE, PAYLEN | DTYP | TUCMD, STA, HDRLEN, MSS
TX_DATA = struct.Struct("<QIBBH")  # buffer address, DTALEN | DTYP | DCMD, STA, POPTS, special
TX_SIZE = 16
TX_CMD_OFFSET, TX_STA_OFFSET = 11, 12  # in every kind of descriptor
TX_LENGTH_MASK, TX_DTYP_SHIFT, TX_CMD_SHIFT = 0xFFFFF, 20, 24  # of the 32-bit word of context and data descriptors
DTYP_CONTEXT, DTYP_DATA = 0b0000, 0b0001
TX_LONGEST = 16288  # bytes of a legacy descriptor's buffer (3.3.3)


class TxCmd(IntFlag):
    """CMD of a legacy descriptor, DCMD of a data descriptor, TUCMD of a context descriptor."""

    EOP = 1 << 0  # in TUCMD: TCP
    IFCS = 1 << 1  # in TUCMD: IP
    IC = 1 << 2  # in DCMD and TUCMD: TSE
    RS = 1 << 3
    DEXT = 1 << 5
    VLE = 1 << 6
    IDE = 1 << 7


TUCMD_TCP, TUCMD_IP, TX_TSE = TxCmd.EOP, TxCmd.IFCS, TxCmd.IC


class TxSta(IntFlag):
    DD = 1 << 0
    EC = 1 << 1
    LC = 1 << 2


class Popts(IntFlag):
    IXSM = 1 << 0
    TXSM = 1 << 1


# -- receive descriptors (3.2.3) --------------------------------------------------------------------------------------

RX_LEGACY = struct.Struct("<QHHBBH")  # buffer address, length, packet checksum, status, errors, special
RX_SIZE = 16
RX_LENGTH_OFFSET, RX_STATUS_OFFSET = 8, 12
RING_STEP = 8  # RDLEN and TDLEN are multiples of 128 bytes
FCS = 4  # in `length`, unless RCTL.SECRC strips it


class RxStatus(IntFlag):
    DD = 1 << 0
    EOP = 1 << 1
    IXSM = 1 << 2
    VP = 1 << 3
    TCPCS = 1 << 5
    IPCS = 1 << 6
    PIF = 1 << 7


class RxError(IntFlag):
    CE = 1 << 0
    SE = 1 << 1
    SEQ = 1 << 2
    CXE = 1 << 4
    TCPE = 1 << 5
    IPE = 1 << 6
    RXE = 1 << 7


RX_FRAME_ERRORS = (
    RxError.CE | RxError.SE | RxError.SEQ | RxError.CXE | RxError.RXE
)  # the octets themselves are in doubt


# -- PHY (13.4.9, table 13-16 on) -------------------------------------------------------------------------------------


class Phy(IntEnum):
    """Registers of the PHY; 0 to 15 are IEEE 802.3 clause 22."""

    PCTRL = 0
    PSTATUS = 1
    PID = 2
    EPID = 3
    ANA = 4
    PPAR = 5
    ANE = 6
    NPT = 7
    LPN = 8
    GCON = 9
    GSTATUS = 10
    EPSTATUS = 15
    PSCON = 16
    PSSTAT = 17
    PINTE = 18
    PINTS = 19
    EPSCON1 = 20
    PREC = 21


PHY_ADDRESS = 1
PHY_ID = (0x0141, 0x0C20)  # 88E1011


class Pctrl(IntFlag):
    SPEED_1000 = 1 << 6
    DUPLEX = 1 << 8
    RESTART_AUTO_NEGOTIATION = 1 << 9
    ISOLATE = 1 << 10
    POWER_DOWN = 1 << 11
    AUTO_NEGOTIATION = 1 << 12
    SPEED_100 = 1 << 13
    LOOPBACK = 1 << 14
    RESET = 1 << 15


class Pstatus(IntFlag):
    EXTENDED = 1 << 0
    LINK = 1 << 2  # latches low
    AUTO_NEGOTIATION_ABLE = 1 << 3
    AUTO_NEGOTIATION_COMPLETE = 1 << 5
    EXTENDED_STATUS = 1 << 8


def hash_bit(destination: bytes, mo: int) -> int:
    """Which bit of the MTA a multicast destination falls on, with RCTL.MO = `mo` (13.5.1)."""
    return (destination[4] | destination[5] << 8) >> MTA_SHIFTS[mo] & 0xFFF
