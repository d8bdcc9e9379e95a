"""Broadcom BCM5787, the NetXtreme family's register map as far as tg3 uses it.

Names: *NetXtreme Gigabit Ethernet Controller Programmer's Reference* (5722-PG101-R and its kin), as Linux' tg3.h spells them. All
registers are 32 bits wide; descriptors and status block are little-endian words of the host after the chip's word swapping, as
tg3 sets it up (GRC_MODE).
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

VENDOR, DEVICE = 0x14E4, 0x169B
CHIP_REVISION = 0xB002  # BCM5787 A2, the upper half of MISC_HOST_CTRL
BAR_SIZE = 1 << 16
SRAM_SIZE = 0x20000


class Reg(IntEnum):
    """Offsets in BAR 0."""

    # PCI configuration and its neighbours, also in configuration space
    TG3PCI_MISC_HOST_CTRL = 0x0068
    TG3PCI_DMA_RW_CTRL = 0x006C
    TG3PCI_PCISTATE = 0x0070
    TG3PCI_CLOCK_CTRL = 0x0074
    TG3PCI_REG_BASE_ADDR = 0x0078
    TG3PCI_MEM_WIN_BASE_ADDR = 0x007C
    TG3PCI_REG_DATA = 0x0080
    TG3PCI_MEM_WIN_DATA = 0x0084
    # mailboxes, low halves
    MAILBOX_INTERRUPT_0 = 0x0204
    MAILBOX_RCV_STD_PROD_IDX = 0x026C
    MAILBOX_RCVRET_CON_IDX_0 = 0x0284
    MAILBOX_SNDHOST_PROD_IDX_0 = 0x0304
    # MAC
    MAC_MODE = 0x0400
    MAC_STATUS = 0x0404
    MAC_EVENT = 0x0408
    MAC_ADDR_0_HIGH = 0x0410
    MAC_ADDR_0_LOW = 0x0414
    MAC_TX_BACKOFF_SEED = 0x0438
    MAC_RX_MTU_SIZE = 0x043C
    MAC_MI_COM = 0x044C
    MAC_MI_STAT = 0x0450
    MAC_MI_MODE = 0x0454
    MAC_TX_MODE = 0x045C
    MAC_TX_STATUS = 0x0460
    MAC_TX_LENGTHS = 0x0464
    MAC_RX_MODE = 0x0468
    MAC_HASH_REG_0 = 0x0470
    MAC_RCV_RULE_CFG = 0x0500
    MAC_EXTADDR_0_HIGH = 0x0530
    MAC_TX_STATS_OCTETS = 0x0800
    MAC_TX_STATS_UCAST = 0x086C
    MAC_TX_STATS_MCAST = 0x0870
    MAC_TX_STATS_BCAST = 0x0874
    MAC_RX_STATS_OCTETS = 0x0880
    MAC_RX_STATS_UCAST = 0x088C
    MAC_RX_STATS_MCAST = 0x0890
    MAC_RX_STATS_BCAST = 0x0894
    MAC_RX_STATS_FCS_ERRORS = 0x0898
    MAC_RX_STATS_XON_PAUSE_RECVD = 0x08A0
    MAC_RX_STATS_XOFF_PAUSE_RECVD = 0x08A4
    MAC_RX_STATS_MAC_CTRL_RECVD = 0x08A8
    MAC_RX_STATS_FRAME_TOO_LONG = 0x08B0
    MAC_RX_STATS_UNDERSIZE = 0x08B8
    # send data and send buffer descriptors
    SNDDATAI_MODE = 0x0C00
    SNDDATAI_STATSCTRL = 0x0C08
    SNDDATAI_STATSENAB = 0x0C0C
    SNDDATAC_MODE = 0x1000
    SNDBDS_MODE = 0x1400
    SNDBDI_MODE = 0x1800
    SNDBDC_MODE = 0x1C00
    # receive
    RCVLPC_MODE = 0x2000
    RCVLPC_CONFIG = 0x2010
    RCVLPC_STATSCTRL = 0x2014
    RCVLPC_STATS_ENABLE = 0x2018
    RCVLPC_NO_RCV_BD_CNT = 0x224C
    RCVLPC_IN_DISCARDS_CNT = 0x2250
    RCVLPC_IN_ERRORS_CNT = 0x2254
    RCVDBDI_MODE = 0x2400
    RCVDBDI_STD_BD_HOST_ADDR_HIGH = 0x2450
    RCVDBDI_STD_BD_HOST_ADDR_LOW = 0x2454
    RCVDBDI_STD_BD_MAXLEN_FLAGS = 0x2458
    RCVDBDI_STD_BD_NIC_ADDR = 0x245C
    RCVDCC_MODE = 0x2800
    RCVBDI_MODE = 0x2C00
    RCVBDI_STD_THRESH = 0x2C18
    RCVCC_MODE = 0x3000
    # host coalescing
    HOSTCC_MODE = 0x3C00
    HOSTCC_RXCOL_TICKS = 0x3C08
    HOSTCC_TXCOL_TICKS = 0x3C0C
    HOSTCC_RXMAX_FRAMES = 0x3C10
    HOSTCC_TXMAX_FRAMES = 0x3C14
    HOSTCC_STATUS_BLK_HOST_ADDR_HIGH = 0x3C38
    HOSTCC_STATUS_BLK_HOST_ADDR_LOW = 0x3C3C
    HOSTCC_STATS_BLK_NIC_ADDR = 0x3C40
    HOSTCC_STATUS_BLK_NIC_ADDR = 0x3C44
    # memory arbiter, buffer manager, DMA engines
    MEMARB_MODE = 0x4000
    BUFMGR_MODE = 0x4400
    BUFMGR_MB_RDMA_LOW_WATER = 0x4410
    BUFMGR_MB_MACRX_LOW_WATER = 0x4414
    BUFMGR_MB_HIGH_WATER = 0x4418
    RDMAC_MODE = 0x4800
    WDMAC_MODE = 0x4C00
    FTQ_RESET = 0x5C00
    # general control
    GRC_MODE = 0x6800
    GRC_MISC_CFG = 0x6804
    GRC_LOCAL_CTRL = 0x6808
    GRC_EEPROM_ADDR = 0x6838
    # NVRAM
    NVRAM_CMD = 0x7000
    NVRAM_WRDATA = 0x7008
    NVRAM_ADDR = 0x700C
    NVRAM_RDDATA = 0x7010
    NVRAM_CFG1 = 0x7014
    NVRAM_SWARB = 0x7020
    # window into SRAM
    NIC_SRAM_WIN_BASE = 0x8000


STATISTICS = range(0x0800, 0x08BC, 4)  # MAC_TX_STATS_*, MAC_RX_STATS_*: cleared when read
CONFIG_ALIAS = range(0x68, 0xA0)  # of configuration space: registers show through


class MiscHostCtrl(IntFlag):
    CLEAR_INT = 0x001
    MASK_PCI_INT = 0x002
    WORD_SWAP = 0x008
    PCISTATE_RW = 0x010
    INDIR_ACCESS = 0x080
    TAGGED_STATUS = 0x200
    CHIPREV = 0xFFFF0000


class PciState(IntFlag):
    INT_NOT_ACTIVE = 0x02
    CONV_PCI_MODE = 0x04
    BUS_SPEED_HIGH = 0x08
    BUS_32BIT = 0x10


class MacMode(IntFlag):
    RESET = 0x1
    HALF_DUPLEX = 0x2
    PORT_MODE_MII = 0x4
    PORT_MODE_GMII = 0x8
    PORT_INT_LPBACK = 0x10
    TDE_ENABLE = 0x200000  # transmit and receive DMA engines
    RDE_ENABLE = 0x400000
    FHDE_ENABLE = 0x800000


class MacStatus(IntFlag):
    LNKSTATE_CHANGED = 0x1000
    MI_COMPLETION = 0x400000


TX_STATUS_LINK_UP = 0x8


class MiCom(IntFlag):
    CMD_WRITE = 0x04000000
    CMD_READ = 0x08000000
    READ_FAILED = 0x10000000
    START = 0x20000000  # reads as busy


MODE_RESET, MODE_ENABLE = 0x1, 0x2  # of every block's mode register


class RxMode(IntFlag):
    FLOW_CTRL_ENABLE = 0x4
    KEEP_MAC_CTRL = 0x8
    KEEP_PAUSE = 0x10
    ACCEPT_OVERSIZED = 0x20
    PROMISC = 0x100
    KEEP_VLAN_TAG = 0x400
    IPV6_CSUM_ENABLE = 0x01000000


class HostccMode(IntFlag):
    ENABLE = 0x2
    NOW = 0x8


GRC_MISC_CFG_CORECLK_RESET = 0x1
GRC_MISC_CFG_KEEP_GPHY_POWER = 0x04000000
GRC_MISC_CFG_PRESCALAR_SHIFT = 1


class GrcMode(IntFlag):
    BSWAP_NONFRM_DATA = 0x2
    WSWAP_NONFRM_DATA = 0x4
    BSWAP_DATA = 0x10
    WSWAP_DATA = 0x20
    HOST_STACKUP = 0x10000
    HOST_SENDBDS = 0x20000
    NO_TX_PHDR_CSUM = 0x100000
    NO_RX_PHDR_CSUM = 0x800000


class LocalCtrl(IntFlag):
    CLEARINT = 0x2
    SETINT = 0x4


EEPROM_ADDR_COMPLETE = 0x40000000


class NvramCmd(IntFlag):
    DONE = 0x8
    GO = 0x10
    WR = 0x20


NVRAM_CFG1_ATMEL_EEPROM_376KHZ = 0x03000002  # a serial EEPROM: plain addresses, no pages


class Sram(IntEnum):
    """Offsets in the chip's memory. A ring control block is four words: address high, low, length and flags, NIC address."""

    SEND_RCB = 0x0100
    RCV_RET_RCB = 0x0200
    FIRMWARE_MBOX = 0x0B50
    DATA_SIG = 0x0B54
    FW_ASF_STATUS_MBOX = 0x0C00
    MAC_ADDR_HIGH_MBOX = 0x0C14
    MAC_ADDR_LOW_MBOX = 0x0C18


FIRMWARE_MBOX_MAGIC1 = 0x4B657654
MAC_ADDR_MBOX_SIGNATURE = 0x484B

TX_RING = RX_STD_RING = RX_RETURN_RING = 512  # entries

TX_BD = struct.Struct("<IIII")  # address high, low, length << 16 | flags, mss << 16 | VLAN tag


class TxFlag(IntFlag):
    TCPUDP_CSUM = 0x0001
    IP_CSUM = 0x0002
    END = 0x0004
    VLAN = 0x0040
    COAL_NOW = 0x0080
    CPU_PRE_DMA = 0x0100
    CPU_POST_DMA = 0x0200


TX_MSS = 0x07FF  # of the mss field; above it the IP and TCP headers' length in words
TX_HEADER_SHIFT = 11

# address high, low, index << 16 | length, type << 16 | flags, IP sum << 16 | TCP/UDP sum, error << 16 | VLAN tag, reserved, opaque
RX_BD = struct.Struct("<IIIIIIII")
FCS = 4  # bytes that the length in a receive descriptor counts besides the frame


class RxFlag(IntFlag):
    END = 0x0004
    VLAN = 0x0040
    ERROR = 0x0400
    IP_CSUM = 0x1000
    TCPUDP_CSUM = 0x2000
    IS_TCP = 0x4000


RXD_ERR_BAD_CRC = 0x00010000


class StatusBlock(IntEnum):
    """Offsets in the status block; status and tag are words, the indices halves."""

    STATUS = 0x00
    TAG = 0x04
    RX_STD_CONSUMER = 0x0A
    RX_PRODUCER = 0x10
    TX_CONSUMER = 0x12


class Status(IntFlag):
    UPDATED = 0x1
    LINK_CHG = 0x2
    ERROR = 0x4


class Mii(IntEnum):
    """Registers of the PHY; 0 to 15 are IEEE 802.3 clause 22, the others Broadcom's."""

    BMCR = 0x00
    BMSR = 0x01
    PHYSID1 = 0x02
    PHYSID2 = 0x03
    ADVERTISE = 0x04
    LPA = 0x05
    EXPANSION = 0x06
    CTRL1000 = 0x09
    STAT1000 = 0x0A
    ESTATUS = 0x0F
    AUX_CTRL = 0x18
    AUX_STAT = 0x19
    ISTAT = 0x1A
    MISC_SHDW = 0x1C


PHY_ADDRESS = 1
PHY_ID = (0x0143, 0xBCE0)  # BCM5787
