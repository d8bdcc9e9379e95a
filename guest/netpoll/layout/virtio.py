"""virtio 1.2: the PCI transport, the split ring, the network device; OASIS' names, little-endian everywhere.

Sections: 2.7 split virtqueues, 4.1 PCI (4.1.4 capabilities, 4.1.4.3 common configuration), 5.1 network device, 6 feature bits.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

VENDOR = 0x1AF4
DEVICE_NET = 0x1041  # 0x1040 + device type 1
DEVICE_NET_TRANSITIONAL = 0x1000
PCI_CAP_ID_VNDR = 0x09

# cap_vndr, cap_next, cap_len, cfg_type, bar, id, padding[2], offset, length; notify_off_multiplier follows where cfg_type is NOTIFY
PCI_CAP = struct.Struct("<BBBBBB2xII")


class CfgType(IntEnum):
    """4.1.4: what a vendor capability points at."""

    COMMON = 1
    NOTIFY = 2
    ISR = 3
    DEVICE = 4
    PCI = 5


class Common(IntEnum):
    """struct virtio_pci_common_cfg, offsets; the width is in `COMMON_WIDTH`."""

    DEVICE_FEATURE_SELECT = 0x00
    DEVICE_FEATURE = 0x04
    DRIVER_FEATURE_SELECT = 0x08
    DRIVER_FEATURE = 0x0C
    CONFIG_MSIX_VECTOR = 0x10
    NUM_QUEUES = 0x12
    DEVICE_STATUS = 0x14
    CONFIG_GENERATION = 0x15
    QUEUE_SELECT = 0x16
    QUEUE_SIZE = 0x18
    QUEUE_MSIX_VECTOR = 0x1A
    QUEUE_ENABLE = 0x1C
    QUEUE_NOTIFY_OFF = 0x1E
    QUEUE_DESC = 0x20
    QUEUE_DRIVER = 0x28
    QUEUE_DEVICE = 0x30


COMMON_SIZE = 0x38
COMMON_WIDTH = {
    Common.DEVICE_FEATURE_SELECT: 4,
    Common.DEVICE_FEATURE: 4,
    Common.DRIVER_FEATURE_SELECT: 4,
    Common.DRIVER_FEATURE: 4,
    Common.CONFIG_MSIX_VECTOR: 2,
    Common.NUM_QUEUES: 2,
    Common.DEVICE_STATUS: 1,
    Common.CONFIG_GENERATION: 1,
    Common.QUEUE_SELECT: 2,
    Common.QUEUE_SIZE: 2,
    Common.QUEUE_MSIX_VECTOR: 2,
    Common.QUEUE_ENABLE: 2,
    Common.QUEUE_NOTIFY_OFF: 2,
    Common.QUEUE_DESC: 8,  # written as two halves (4.1.3.1)
    Common.QUEUE_DRIVER: 8,
    Common.QUEUE_DEVICE: 8,
}
NO_VECTOR = 0xFFFF


class Status(IntFlag):
    """2.1: device_status."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Isr(IntFlag):
    """4.1.4.5: read, and cleared by it."""

    QUEUE = 1
    CONFIG = 2


class Feature(IntEnum):
    """Bit numbers."""

    CSUM = 0
    GUEST_CSUM = 1
    MTU = 3
    MAC = 5
    MRG_RXBUF = 15
    STATUS = 16
    CTRL_VQ = 17
    CTRL_RX = 18
    CTRL_VLAN = 19
    CTRL_RX_EXTRA = 20
    CTRL_MAC_ADDR = 23
    RING_INDIRECT_DESC = 28
    RING_EVENT_IDX = 29
    VERSION_1 = 32
    ACCESS_PLATFORM = 33
    ORDER_PLATFORM = 36


def bits(*features: Feature) -> int:
    """A word of 64 feature bits."""
    return sum(1 << feature for feature in features)


# 2.7: the split ring. A descriptor: address, length, flags, next.
DESC = struct.Struct("<QIHH")
USED_ELEM = struct.Struct("<II")  # id, len
RING_HEADER = struct.Struct("<HH")  # flags, idx: of the driver's area (available) and of the device's (used)
DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT = 1, 2, 4
AVAIL_F_NO_INTERRUPT = USED_F_NO_NOTIFY = 1
LARGEST_QUEUE = 32768


def avail_size(queue: int) -> int:
    """flags, idx, ring[queue], used_event."""
    return 4 + 2 * queue + 2


def used_size(queue: int) -> int:
    """flags, idx, ring[queue], avail_event."""
    return 4 + 8 * queue + 2


def need_event(event: int, new: int, old: int) -> bool:
    """2.7.7.2, vring_need_event(): whether an index that went from `old` to `new` passed `event`."""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF


# 5.1: the network device
RX_QUEUE, TX_QUEUE, CTRL_QUEUE = 0, 1, 2  # with one pair, and VIRTIO_NET_F_CTRL_VQ

# flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers: before each frame
NET_HDR = struct.Struct("<BBHHHHH")
NET_HDR_F_NEEDS_CSUM, NET_HDR_F_DATA_VALID = 1, 2
NET_HDR_GSO_NONE = 0


class NetConfig(IntEnum):
    """struct virtio_net_config, offsets."""

    MAC = 0
    STATUS = 6
    MAX_VIRTQUEUE_PAIRS = 8
    MTU = 10


NET_CONFIG_SIZE = 12
S_LINK_UP = 1


class Ctrl(IntEnum):
    """5.1.6.5: class of a command."""

    RX = 0
    MAC = 1
    VLAN = 2


class CtrlRx(IntEnum):
    PROMISC = 0
    ALLMULTI = 1
    ALLUNI = 2
    NOMULTI = 3
    NOUNI = 4
    NOBCAST = 5


CTRL_MAC_TABLE_SET, CTRL_MAC_ADDR_SET = 0, 1
CTRL_VLAN_ADD, CTRL_VLAN_DEL = 0, 1
CTRL_OK, CTRL_ERR = 0, 1
