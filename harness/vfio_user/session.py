"""One client's conversation with one device: bytes and descriptors in, bytes out. No socket anywhere.

In: what `recvmsg` returned, in any pieces. Out: the replies to send. Rule: every message is checked in full (length, descriptors,
index, range) before the device hears of it; a senseless message is refused with an errno, a broken stream raises Violation, and
an exception of the device becomes EIO and a remark: nothing that a client sends can end the server.

States: NEW -VERSION-> OPEN -Violation-> CLOSED. Only VERSION is understood when NEW.

**Whose descriptors.** A UNIX stream socket attaches descriptors to the bytes of one sendmsg, never joins those bytes with what
follows, but may put earlier bytes before them: descriptors that come with a piece belong to the message that the piece's last byte
is part of.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Protocol

from harness.vfio_user import wire
from harness.vfio_user.errors import Refused, Violation
from harness.vfio_user.wire import HEADER, Command, Flags, SetIrqs

Remark = Callable[[str], None]


class State(Enum):
    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True)
class IrqSet:
    """DEVICE_SET_IRQS, checked: `data` has a value for each of `count` interrupts from `start` on if flags say DATA_BOOL."""

    flags: SetIrqs
    index: int
    start: int
    count: int
    data: bytes


class Device(Protocol):
    """What a session serves. Each method may raise Refused; `fds` that a method wants to keep it takes out of the list."""

    def region(self, index: int) -> tuple[int, int]:
        """Size in bytes and RegionFlags of region `index`; (0, 0) if the device has none there."""

    def irq(self, index: int) -> tuple[int, int]:
        """How many interrupts of kind `index` there are, and their IrqFlags."""

    def region_read(self, index: int, offset: int, count: int) -> bytes: ...

    def region_write(self, index: int, offset: int, data: bytes) -> None: ...

    def superseded(self, index: int, offset: int, times: int) -> bool:
        """`times` posted writes to one place and then one more have come in a row. True if the last one is enough, as it is for a
        mailbox whose value alone counts; the others are not passed on then. False if each is to be."""

    def dma_map(self, flags: int, iova: int, size: int, fds: list[int], offset: int) -> None: ...

    def dma_unmap(self, iova: int, size: int) -> None: ...

    def dma_unmap_all(self) -> None: ...

    def set_irqs(self, request: IrqSet, fds: list[int]) -> None: ...

    def reset(self) -> None: ...


_COMMANDS = frozenset(int(command) for command in Command)
# Plain numbers for what each message passes: an IntFlag's `&` costs a third of the whole parse.
_TYPE, _NO_REPLY, _REPLY, _REFUSAL = 0xF, int(Flags.NO_REPLY), int(Flags.REPLY), int(Flags.REPLY | Flags.ERROR)
_READ, _WRITE = int(wire.RegionFlags.READ), int(wire.RegionFlags.WRITE)
_POSTABLE = int(Command.REGION_WRITE)
_IDENT, _VALUE = (
    2,
    HEADER.size + wire.REGION_ACCESS.size,
)  # of a posted write: behind its identifier; before what is written
REGIONS = len(wire.Region)
IRQS = len(wire.Irq)
_CAPABILITIES = {
    "max_msg_fds": wire.MAX_FDS,
    "max_data_xfer_size": wire.MAX_TRANSFER,
    "pgsizes": wire.PAGE,
    "max_dma_maps": wire.MAX_DMA_MAPS,
}


class Session:
    """Feed `receive`; send what it returns. `remark` hears of refused messages and of the device's own defects."""

    def __init__(
        self, device: Device, remark: Remark = lambda _text: None, close: Callable[[int], None] = os.close
    ) -> None:
        self.state = State.NEW
        self.posted = 0  # writes so far for which nobody waits
        self._device = device
        self._remark = remark
        self._close = close
        self._partial = b""
        self._fds: list[int] = []  # of the message that `_partial` begins
        self._handlers: dict[int, Callable[[bytes, list[int]], bytes]] = {
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.DMA_MAP: self._dma_map,
            Command.DMA_UNMAP: self._dma_unmap,
            Command.DEVICE_GET_INFO: self._device_info,
            Command.DEVICE_GET_REGION_INFO: self._region_info,
            Command.DEVICE_GET_IRQ_INFO: self._irq_info,
            Command.DEVICE_SET_IRQS: self._set_irqs,
            Command.DEVICE_RESET: self._reset,
            Command.VERSION: self._again,
        }

    def receive(self, data: bytes, fds: Sequence[int] = ()) -> bytes:
        """Take a piece of the stream with the descriptors that came with it; returns replies, perhaps none.

        Raises Violation, with all descriptors closed; the session is CLOSED then.
        """
        if self.state is State.CLOSED:
            self._drop(list(fds))
            raise Violation("the session is closed")
        arrived = list(fds)
        try:
            return self._messages(self._partial + data if self._partial else data, arrived)
        except Violation:
            self.close()
            self._drop(arrived)
            raise

    def close(self) -> None:
        """Forget what has been received in part."""
        self.state = State.CLOSED
        self._partial = b""
        self._drop(self._fds)

    def _messages(self, data: bytes, arrived: list[int]) -> bytes:
        out = b""
        at, total = 0, len(data)
        while total - at >= HEADER.size:
            ident, command, size, flags, _ = HEADER.unpack_from(data, at)
            _check_header(size, flags)
            end = at + size
            if end > total:
                break
            if flags == _NO_REPLY and command == _POSTABLE and self.state is State.OPEN and not (arrived or self._fds):
                at = self._posted(data, at, end)
                continue
            fds = self._fds
            self._fds = []
            if end == total:
                fds += arrived
                arrived.clear()
            out += self._answer(ident, command, flags, data[at + HEADER.size : end], fds)
            at = end
        self._partial = data[at:]
        if self._partial:
            self._fds += arrived
            arrived.clear()
            if len(self._fds) > wire.MAX_FDS:
                raise Violation(f"{len(self._fds)} descriptors with one message")
        self._drop(arrived)  # came with no bytes at all
        return out

    def _answer(self, ident: int, command: int, flags: int, payload: bytes, fds: list[int]) -> bytes:
        code = 0
        try:
            if self.state is State.NEW:
                body = self._version(command, payload)
            else:
                handler = self._handlers.get(command)
                if handler is None:
                    raise Refused(errno.EOPNOTSUPP, f"command {command}")
                if fds and command not in (Command.DMA_MAP, Command.DEVICE_SET_IRQS):
                    raise Refused(errno.EINVAL, f"{len(fds)} descriptors with command {command}")
                body = handler(payload, fds)
        except Refused as refused:
            self._remark(f"refused {_name(command)}: {refused}")
            body, code = b"", refused.errno
        except Violation:
            raise
        except Exception as defect:
            self._remark(f"defect in {_name(command)}: {type(defect).__name__}: {defect}")
            body, code = b"", errno.EIO
        finally:
            if fds:
                self._drop(fds)
        if flags & _NO_REPLY:
            return b""
        kind = _REFUSAL if code else _REPLY
        return HEADER.pack(ident, command, HEADER.size + len(body), kind, code) + body

    def _posted(self, data: bytes, at: int, end: int) -> int:
        """The write in data[at:end], for which nobody waits, which is most of what a driver does: what `_answer` does, in fewer steps.
        Returns where it ends; so do those that it made superfluous."""
        size, first = end - at, at
        try:
            at, end = self._newest(data, at, end)
            self._write(data, at + HEADER.size, end)
        except Refused as refused:
            self._remark(f"refused {_name(_POSTABLE)}: {refused}")
        except Exception as defect:
            self._remark(f"defect in {_name(_POSTABLE)}: {type(defect).__name__}: {defect}")
        self.posted += (end - first) // size
        return end

    def _newest(self, data: bytes, at: int, end: int) -> tuple[int, int]:
        """The last of the writes from data[at:end] on that differ in identifier and value only, if the device takes it for all of them."""
        size = end - at
        same = data[at + _IDENT : at + _VALUE]
        last, total, times = at, len(data) - size, 0
        while last + size <= total and data[last + size + _IDENT : last + size + _VALUE] == same:
            last += size
            times += 1
        if times and size > _VALUE:
            offset, index, count = wire.REGION_ACCESS.unpack_from(data, at + HEADER.size)
            self._check_access(index, offset, count, _WRITE)
            if size - _VALUE == count and self._device.superseded(index, offset, times):
                return last, last + size
        return at, end

    def _version(self, command: int, payload: bytes) -> bytes:
        """The first message. A peer of another major version, or that says something else first, is none of ours."""
        if command != Command.VERSION:
            raise Violation(f"{_name(command)} before VERSION")
        if len(payload) < wire.VERSION.size:
            raise Violation("VERSION is cut short")
        major, minor = wire.VERSION.unpack_from(payload)
        if major != 0:
            raise Violation(f"version {major}.{minor}: we speak 0.0")
        _check_capabilities(payload[wire.VERSION.size :])
        self.state = State.OPEN
        said = json.dumps({"capabilities": _CAPABILITIES}).encode() + b"\0"
        return wire.VERSION.pack(0, 0) + said

    def _again(self, _payload: bytes, _fds: list[int]) -> bytes:
        raise Refused(errno.EINVAL, "VERSION was agreed before")

    def _region_read(self, payload: bytes, _fds: list[int]) -> bytes:
        if len(payload) != wire.REGION_ACCESS.size:
            raise Refused(errno.EINVAL, f"{len(payload)} bytes of payload")
        offset, index, count = wire.REGION_ACCESS.unpack(payload)
        self._check_access(index, offset, count, _READ)
        return payload + self._device.region_read(index, offset, count)

    def _region_write(self, payload: bytes, _fds: list[int]) -> bytes:
        self._write(payload, 0, len(payload))
        return payload[: wire.REGION_ACCESS.size]

    def _write(self, data: bytes, at: int, end: int) -> None:
        """The write whose payload is data[at:end]."""
        body = at + wire.REGION_ACCESS.size
        if end < body:
            raise Refused(errno.EINVAL, f"{end - at} bytes of payload")
        offset, index, count = wire.REGION_ACCESS.unpack_from(data, at)
        if end - body != count:
            raise Refused(errno.EINVAL, f"{end - body} bytes of data for a write of {count}")
        self._check_access(index, offset, count, _WRITE)
        self._device.region_write(index, offset, data[body:end])

    def _check_access(self, index: int, offset: int, count: int, need: int) -> None:
        if index >= REGIONS:
            raise Refused(errno.EINVAL, f"region {index}")
        size, flags = self._device.region(index)
        if not 0 < count <= wire.MAX_TRANSFER or offset + count > size or not flags & need:
            raise Refused(errno.EINVAL, f"{count} bytes at {offset:#x} of region {index}, which has {size}")

    def _dma_map(self, payload: bytes, fds: list[int]) -> bytes:
        argsz, flags, offset, iova, size = _unpack(wire.DMA_MAP, payload)
        if argsz < wire.DMA_MAP.size or flags & ~0x3 or not flags:
            raise Refused(errno.EINVAL, f"argsz {argsz}, flags {flags:#x}")
        if size == 0 or (iova | size | offset) % wire.PAGE or iova + size > 1 << 64:
            raise Refused(errno.EINVAL, f"iova {iova:#x}, size {size:#x}, offset {offset:#x}")
        if len(fds) > 1:
            raise Refused(errno.EINVAL, f"{len(fds)} descriptors for one range")
        self._device.dma_map(flags, iova, size, fds, offset)
        return b""

    def _dma_unmap(self, payload: bytes, _fds: list[int]) -> bytes:
        argsz, flags, iova, size = _unpack(wire.DMA_UNMAP, payload)
        if argsz < wire.DMA_UNMAP.size or flags & ~wire.UNMAP_ALL:
            raise Refused(errno.EINVAL, f"argsz {argsz}, flags {flags:#x}")
        if flags == wire.UNMAP_ALL:
            if iova or size:
                raise Refused(errno.EINVAL, "all, and a range")
            self._device.dma_unmap_all()
        else:
            if size == 0 or iova + size > 1 << 64:
                raise Refused(errno.EINVAL, f"iova {iova:#x}, size {size:#x}")
            self._device.dma_unmap(iova, size)
        return payload

    def _device_info(self, payload: bytes, _fds: list[int]) -> bytes:
        argsz, *_ = _unpack(wire.DEVICE_INFO, payload)
        _check_argsz(argsz, wire.DEVICE_INFO.size)
        flags = wire.DeviceFlags.PCI | wire.DeviceFlags.RESET
        return wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, flags, REGIONS, IRQS)

    def _region_info(self, payload: bytes, _fds: list[int]) -> bytes:
        argsz, _, index, *_ = _unpack(wire.REGION_INFO, payload)
        _check_argsz(argsz, wire.REGION_INFO.size)
        if index >= REGIONS:
            raise Refused(errno.EINVAL, f"region {index}")
        size, flags = self._device.region(index)
        return wire.REGION_INFO.pack(wire.REGION_INFO.size, flags, index, 0, size, 0)

    def _irq_info(self, payload: bytes, _fds: list[int]) -> bytes:
        argsz, _, index, _ = _unpack(wire.IRQ_INFO, payload)
        _check_argsz(argsz, wire.IRQ_INFO.size)
        if index >= IRQS:
            raise Refused(errno.EINVAL, f"interrupt kind {index}")
        count, flags = self._device.irq(index)
        return wire.IRQ_INFO.pack(wire.IRQ_INFO.size, flags, index, count)

    def _set_irqs(self, payload: bytes, fds: list[int]) -> bytes:
        if len(payload) < wire.IRQ_SET.size:
            raise Refused(errno.EINVAL, f"{len(payload)} bytes of payload")
        argsz, flags, index, start, count = wire.IRQ_SET.unpack_from(payload)
        _check_argsz(argsz, wire.IRQ_SET.size)
        if index >= IRQS:
            raise Refused(errno.EINVAL, f"interrupt kind {index}")
        request = IrqSet(SetIrqs(flags), index, start, count, payload[wire.IRQ_SET.size :])
        _check_irq_set(request, self._device.irq(index)[0], len(fds))
        self._device.set_irqs(request, fds)
        return b""

    def _reset(self, payload: bytes, _fds: list[int]) -> bytes:
        if payload:
            raise Refused(errno.EINVAL, f"{len(payload)} bytes of payload")
        self._device.reset()
        return b""

    def _drop(self, fds: list[int]) -> None:
        while fds:
            self._close(fds.pop())


_ONE_BIT = (1, 2, 4)
_ACTIONS = (SetIrqs.ACTION_MASK, SetIrqs.ACTION_UNMASK, SetIrqs.ACTION_TRIGGER)


def _check_irq_set(request: IrqSet, there: int, fds: int) -> None:
    """linux/vfio.h, struct vfio_irq_set: what goes together."""
    flags, count = request.flags, request.count
    if flags & ~0x3F or flags.data not in _ONE_BIT or flags.action not in _ACTIONS:
        raise Refused(errno.EINVAL, f"flags {flags:#x}")
    if request.start + count > there:
        raise Refused(errno.EINVAL, f"interrupts {request.start} to {request.start + count} of {there}")
    if count == 0 and (flags != SetIrqs.DATA_NONE | SetIrqs.ACTION_TRIGGER or request.start):
        raise Refused(errno.EINVAL, "no interrupts, but not to disable all")
    data = count if flags.data == SetIrqs.DATA_BOOL else 0
    if len(request.data) != data:
        raise Refused(errno.EINVAL, f"{len(request.data)} bytes of data for {count} interrupts")
    if fds and (flags.data != SetIrqs.DATA_EVENTFD or fds != count):
        raise Refused(errno.EINVAL, f"{fds} descriptors for {count} interrupts")


def _check_header(size: int, flags: int) -> None:
    if not HEADER.size <= size <= wire.MAX_MESSAGE:
        raise Violation(f"a message of {size} bytes")
    if flags & _TYPE:
        raise Violation(f"message flags {flags:#x}: not a request, and we asked for nothing")


def _check_argsz(argsz: int, least: int) -> None:
    if argsz < least:
        raise Refused(errno.EINVAL, f"argsz {argsz} is less than {least}")


def _check_capabilities(data: bytes) -> None:
    """JSON with a NUL behind it, or nothing. We need none of it, but a client that sends garbage is not one of ours."""
    if not data:
        return
    try:
        if data[-1:] != b"\0" or not isinstance(json.loads(data[:-1]), dict):
            raise Violation("the capabilities in VERSION are no JSON object with a NUL behind it")
    except (ValueError, RecursionError) as error:
        raise Violation(f"the capabilities in VERSION are no JSON: {error}") from error


def _unpack(layout: Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) != layout.size:
        raise Refused(errno.EINVAL, f"{len(payload)} bytes of payload instead of {layout.size}")
    return layout.unpack(payload)


def _name(command: int) -> str:
    return Command(command).name if command in _COMMANDS else f"command {command}"
