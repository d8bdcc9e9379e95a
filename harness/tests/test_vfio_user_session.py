"""The vfio-user session without a socket: good messages, every kind of bad one, and pieces of any size. (bytes, descriptors) in,
bytes out."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.vfio_user import wire
from harness.vfio_user.errors import Refused, Violation
from harness.vfio_user.session import IrqSet, Session, State
from harness.vfio_user.wire import HEADER, Command, SetIrqs

MAILBOX = 0x20  # the newest value is enough there
OPENING = b'{"capabilities":{"max_msg_fds":8}}\0'


@dataclass
class Recorder:
    """A device that remembers what it was asked; region 0 has 64 bytes, 7 has 256; one INTx, four MSI."""

    calls: list[tuple[object, ...]] = field(default_factory=list)

    def region(self, index: int) -> tuple[int, int]:
        return {0: (64, 3), 2: (64, 1), 7: (256, 3)}.get(index, (0, 0))

    def irq(self, index: int) -> tuple[int, int]:
        return {0: (1, 7), 1: (4, 9)}.get(index, (0, 9))

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        if offset == 60 and index == 0:
            raise ZeroDivisionError("a defect of the model")
        return bytes(range(offset, offset + count))

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        self.calls.append(("write", index, offset, bytes(data)))

    def superseded(self, index: int, offset: int, times: int) -> bool:
        self.calls.append(("superseded", index, offset, times))
        return offset == MAILBOX

    def dma_map(self, flags: int, iova: int, size: int, fds: list[int], offset: int) -> None:
        self.calls.append(("map", flags, iova, size, tuple(fds), offset))
        if iova == 0xDEAD000:
            raise Refused(errno.EEXIST, "there already")

    def dma_unmap(self, iova: int, size: int) -> None:
        self.calls.append(("unmap", iova, size))

    def dma_unmap_all(self) -> None:
        self.calls.append(("unmap all",))

    def set_irqs(self, request: IrqSet, fds: list[int]) -> None:
        self.calls.append(("irqs", request, tuple(fds)))
        fds.clear()  # kept

    def reset(self) -> None:
        self.calls.append(("reset",))


def message(command: int, payload: bytes = b"", flags: int = 0, ident: int = 7, size: int | None = None) -> bytes:
    return HEADER.pack(ident, command, HEADER.size + len(payload) if size is None else size, flags, 0) + payload


VERSION = message(Command.VERSION, wire.VERSION.pack(0, 0) + OPENING)


class Talk:
    """An open session, its device and what was closed."""

    def __init__(self, opened: bool = True) -> None:
        self.device, self.closed, self.remarks = Recorder(), list[int](), list[str]()
        self.session = Session(self.device, self.remarks.append, self.closed.append)
        if opened:
            self.session.receive(VERSION)

    def ask(self, command: int, payload: bytes = b"", fds: Sequence[int] = (), flags: int = 0) -> tuple[int, bytes]:
        """Errno and body of the reply."""
        said = self.session.receive(message(command, payload, flags), fds)
        ident, answered, size, kind, code = HEADER.unpack_from(said)
        assert (ident, answered, size) == (7, command, len(said))
        assert kind == (0x21 if code else 0x01)
        return code, said[HEADER.size :]


def test_the_opening() -> None:
    talk = Talk(opened=False)
    code, body = talk.ask(Command.VERSION, wire.VERSION.pack(0, 0) + OPENING)
    assert (code, wire.VERSION.unpack_from(body)) == (0, (0, 0))
    assert json.loads(body[4:-1])["capabilities"]["max_data_xfer_size"] == 1 << 20
    assert talk.session.state is State.OPEN


def access(offset: int, region: int, count: int, data: bytes = b"") -> bytes:
    return wire.REGION_ACCESS.pack(offset, region, count) + data


def test_what_qemu_sends_is_answered() -> None:
    talk = Talk()
    assert talk.ask(Command.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0)) == (
        0,
        wire.DEVICE_INFO.pack(16, 3, 9, 5),
    )
    config = wire.REGION_INFO.pack(32, 3, 7, 0, 256, 0)
    assert talk.ask(Command.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(32, 0, 7, 0, 0, 0)) == (0, config)
    assert talk.ask(Command.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, 0, 0)) == (
        0,
        wire.IRQ_INFO.pack(16, 7, 0, 1),
    )
    assert talk.ask(Command.REGION_READ, access(4, 0, 4)) == (0, access(4, 0, 4) + b"\4\5\6\7")
    assert talk.ask(Command.REGION_WRITE, access(8, 0, 2, b"ab")) == (0, access(8, 0, 2))
    assert talk.ask(Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 0x1000, 0x2000), [5])[0] == 0
    assert talk.ask(Command.DMA_UNMAP, wire.DMA_UNMAP.pack(24, 0, 0x1000, 0x2000))[0] == 0
    assert talk.ask(Command.DMA_UNMAP, wire.DMA_UNMAP.pack(24, 2, 0, 0))[0] == 0
    assert talk.ask(Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x24, 1, 0, 1), [9])[0] == 0
    assert talk.ask(Command.DEVICE_RESET)[0] == 0
    eventfd = IrqSet(SetIrqs.DATA_EVENTFD | SetIrqs.ACTION_TRIGGER, 1, 0, 1, b"")
    assert talk.device.calls == [
        ("write", 0, 8, b"ab"),
        ("map", 3, 0x1000, 0x2000, (5,), 0),
        ("unmap", 0x1000, 0x2000),
        ("unmap all",),
        ("irqs", eventfd, (9,)),
        ("reset",),
    ]
    assert talk.closed == [5], "what the device did not keep is closed, what it kept is not"


REFUSED = {
    "read: short": (Command.REGION_READ, access(0, 0, 4)[:-1], 0),
    "read: long": (Command.REGION_READ, access(0, 0, 4, b"x"), 0),
    "read: nothing": (Command.REGION_READ, access(0, 0, 0), 0),
    "read: over the end": (Command.REGION_READ, access(61, 0, 4), 0),
    "read: offset wraps": (Command.REGION_READ, access((1 << 64) - 2, 0, 4), 0),
    "read: too much": (Command.REGION_READ, access(0, 7, wire.MAX_TRANSFER + 1), 0),
    "read: no such region": (Command.REGION_READ, access(0, 9, 4), 0),
    "read: empty region": (Command.REGION_READ, access(0, 1, 4), 0),
    "read: with a descriptor": (Command.REGION_READ, access(0, 0, 4), 1),
    "write: short": (Command.REGION_WRITE, b"\0" * 15, 0),
    "write: less data than said": (Command.REGION_WRITE, access(0, 0, 4, b"abc"), 0),
    "write: more data than said": (Command.REGION_WRITE, access(0, 0, 4, b"abcde"), 0),
    "write: over the end": (Command.REGION_WRITE, access(62, 0, 4, b"abcd"), 0),
    "write: read-only region": (Command.REGION_WRITE, access(0, 2, 1, b"a"), 0),
    "map: short": (Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 0, 4096)[:-4], 1),
    "map: argsz": (Command.DMA_MAP, wire.DMA_MAP.pack(31, 3, 0, 0, 4096), 1),
    "map: no access": (Command.DMA_MAP, wire.DMA_MAP.pack(32, 0, 0, 0, 4096), 1),
    "map: unknown flag": (Command.DMA_MAP, wire.DMA_MAP.pack(32, 7, 0, 0, 4096), 1),
    "map: empty": (Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 0, 0), 1),
    "map: part of a page": (Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 0, 100), 1),
    "map: odd iova": (Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 8, 4096), 1),
    "map: odd offset": (Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 8, 0, 4096), 1),
    "map: over the top": (Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, (1 << 64) - 4096, 8192), 1),
    "map: two descriptors": (Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 0, 4096), 2),
    "unmap: short": (Command.DMA_UNMAP, b"\0" * 20, 0),
    "unmap: dirty bitmap": (Command.DMA_UNMAP, wire.DMA_UNMAP.pack(24, 1, 0, 4096), 0),
    "unmap: all and a range": (Command.DMA_UNMAP, wire.DMA_UNMAP.pack(24, 2, 0, 4096), 0),
    "unmap: nothing": (Command.DMA_UNMAP, wire.DMA_UNMAP.pack(24, 0, 4096, 0), 0),
    "info: short": (Command.DEVICE_GET_INFO, b"\0" * 12, 0),
    "info: argsz": (Command.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(8, 0, 0, 0), 0),
    "region info: index": (Command.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(32, 0, 9, 0, 0, 0), 0),
    "irq info: index": (Command.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, 5, 0), 0),
    "irqs: short": (Command.DEVICE_SET_IRQS, b"\0" * 19, 0),
    "irqs: index": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x24, 5, 0, 1), 1),
    "irqs: no action": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x04, 1, 0, 1), 1),
    "irqs: two actions": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x34, 1, 0, 1), 1),
    "irqs: two kinds of data": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x26, 1, 0, 1), 1),
    "irqs: unknown flag": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x64, 1, 0, 1), 1),
    "irqs: too many": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x24, 1, 2, 3), 3),
    "irqs: start wraps": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x24, 1, 0xFFFFFFFF, 2), 2),
    "irqs: too few descriptors": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x24, 1, 0, 3), 2),
    "irqs: descriptors that nobody asked for": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x21, 1, 0, 1), 1),
    "irqs: none, unmasked": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x11, 0, 0, 0), 0),
    "irqs: booleans missing": (Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x22, 1, 0, 2) + b"\1", 0),
    "reset: with payload": (Command.DEVICE_RESET, b"\0", 0),
    "version again": (Command.VERSION, wire.VERSION.pack(0, 0) + OPENING, 0),
}


@pytest.mark.parametrize(("command", "payload", "fds"), REFUSED.values(), ids=REFUSED.keys())
def test_a_senseless_message_is_refused_and_the_session_goes_on(command: int, payload: bytes, fds: int) -> None:
    talk = Talk()
    given_fds = list(range(100, 100 + fds))
    assert talk.ask(command, payload, given_fds) == (errno.EINVAL, b"")
    assert talk.device.calls == []
    assert sorted(talk.closed) == given_fds, "no descriptor leaks"
    assert talk.ask(Command.REGION_READ, access(0, 0, 1))[0] == 0


@pytest.mark.parametrize("command", [0, 6, 11, 12, 14, 15, 0xFFFF])
def test_a_command_that_we_do_not_serve(command: int) -> None:
    assert Talk().ask(command) == (errno.EOPNOTSUPP, b"")


def test_what_the_device_refuses_and_what_it_fails_at() -> None:
    talk = Talk()
    assert talk.ask(Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 0xDEAD000, 4096), [3])[0] == errno.EEXIST
    assert talk.ask(Command.REGION_READ, access(60, 0, 4))[0] == errno.EIO
    assert "ZeroDivisionError" in talk.remarks[-1]
    assert talk.ask(Command.REGION_READ, access(0, 0, 4))[0] == 0


def _posted(offset: int, value: int, region: int = 0, count: int = 4) -> bytes:
    payload = wire.REGION_ACCESS.pack(offset, region, count) + value.to_bytes(4, "little")
    return message(Command.REGION_WRITE, payload, wire.Flags.NO_REPLY, ident=value)


def _writes(talk: Talk) -> list[tuple[int, int]]:
    """What reached region 0 of the device: where, what."""
    return [
        (int(str(call[2])), int.from_bytes(bytes(call[3]), "little"))  # type: ignore[call-overload]
        for call in talk.device.calls
        if call[0] == "write"
    ]


def test_of_posted_writes_to_a_mailbox_in_a_row_the_newest_is_passed_on() -> None:
    talk = Talk()
    assert talk.session.receive(b"".join(_posted(MAILBOX, value) for value in (1, 2, 3)) + _posted(8, 4)) == b""
    assert _writes(talk) == [(MAILBOX, 3), (8, 4)]
    assert ("superseded", 0, MAILBOX, 2) in talk.device.calls


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        pytest.param(_posted(8, 1) + _posted(8, 2), [(8, 1), (8, 2)], id="another-register"),
        pytest.param(
            _posted(MAILBOX, 1) + _posted(8, 2) + _posted(MAILBOX, 3),
            [(MAILBOX, 1), (8, 2), (MAILBOX, 3)],
            id="between",
        ),
        pytest.param(
            _posted(MAILBOX, 1) + message(Command.REGION_WRITE, _posted(MAILBOX, 2)[HEADER.size :]),
            [(MAILBOX, 1), (MAILBOX, 2)],
            id="one-that-wants-a-reply",
        ),
        pytest.param(_posted(MAILBOX, 1) + _posted(MAILBOX, 2)[:-1], [(MAILBOX, 1)], id="not-all-there-yet"),
        pytest.param(_posted(MAILBOX, 1, count=3) + _posted(MAILBOX, 2, count=3), [], id="bad-length"),
        pytest.param(_posted(MAILBOX, 1, region=9) * 2, [], id="no-region"),
    ],
)
def test_what_is_not_the_same_mailbox_in_a_row_is_passed_on_one_by_one(
    stream: bytes, wanted: list[tuple[int, int]]
) -> None:
    talk = Talk()
    talk.session.receive(stream)
    assert _writes(talk) == wanted
    assert not talk.remarks or not wanted, "what is refused is refused each time"
    assert len(talk.remarks) in (0, 2)


def test_a_posted_message_has_no_reply_even_when_refused() -> None:
    talk = Talk()
    assert talk.session.receive(message(Command.REGION_WRITE, access(0, 0, 1, b"x"), 0x10)) == b""
    assert talk.session.receive(message(Command.REGION_WRITE, access(99, 0, 1, b"x"), 0x10)) == b""
    assert talk.device.calls == [("write", 0, 0, b"x")]
    assert "refused REGION_WRITE" in talk.remarks[0]


BROKEN = {
    "size below a header": (True, message(Command.DEVICE_RESET, size=15)),
    "size zero": (True, message(Command.DEVICE_RESET, size=0)),
    "size beyond all": (True, message(Command.DEVICE_RESET, size=wire.MAX_MESSAGE + 1)),
    "a reply": (True, message(Command.REGION_READ, flags=1)),
    "an unknown type": (True, message(Command.REGION_READ, flags=3)),
    "something before VERSION": (False, message(Command.DEVICE_RESET)),
    "another major version": (False, message(Command.VERSION, wire.VERSION.pack(1, 0) + OPENING)),
    "VERSION cut short": (False, message(Command.VERSION, b"\0\0")),
    "capabilities without NUL": (False, message(Command.VERSION, wire.VERSION.pack(0, 0) + b"{}")),
    "capabilities that are no JSON": (False, message(Command.VERSION, wire.VERSION.pack(0, 0) + b"{\0")),
    "capabilities that are no object": (False, message(Command.VERSION, wire.VERSION.pack(0, 0) + b"[]\0")),
    "capabilities that are no text": (False, message(Command.VERSION, wire.VERSION.pack(0, 0) + b'"\xff"\0')),
    "capabilities without bottom": (False, message(Command.VERSION, wire.VERSION.pack(0, 0) + b"[" * 50000 + b"\0")),
}


@pytest.mark.parametrize(("opened", "data"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_stream_ends_the_session(opened: bool, data: bytes) -> None:
    talk = Talk(opened)
    with pytest.raises(Violation):
        talk.session.receive(data, [3, 4])
    assert sorted(talk.closed) == [3, 4]
    with pytest.raises(Violation, match="closed"):
        talk.session.receive(b"", [5])
    assert 5 in talk.closed


MAP = message(Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 0x1000, 0x1000))
BARE = message(Command.DMA_MAP, wire.DMA_MAP.pack(32, 1, 0, 0xC0000, 0x1000))


def maps(talk: Talk) -> list[tuple[object, object]]:
    return [(call[2], call[4]) for call in talk.device.calls if call[0] == "map"]


def test_a_descriptor_belongs_to_the_message_with_the_last_byte() -> None:
    talk = Talk()
    talk.session.receive(BARE + BARE + MAP, [8])
    assert maps(talk) == [(0xC0000, ()), (0xC0000, ()), (0x1000, (8,))]


def test_a_descriptor_that_comes_with_the_beginning_of_a_message() -> None:
    talk = Talk()
    talk.session.receive(BARE + MAP[:5], [8])
    assert maps(talk) == [(0xC0000, ())]
    talk.session.receive(MAP[5:] + BARE + MAP, [9])
    assert maps(talk) == [(0xC0000, ()), (0x1000, (8,)), (0xC0000, ()), (0x1000, (9,))]


def test_descriptors_of_a_message_that_never_ends_are_bounded_and_closed() -> None:
    talk = Talk()
    talk.session.receive(MAP[:20], range(8))
    with pytest.raises(Violation, match="9 descriptors"):
        talk.session.receive(MAP[20:30], [8])
    assert sorted(talk.closed) == list(range(9))


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_any_size_say_the_same(seed: int) -> None:
    rng = random.Random(seed)
    stream = VERSION + b"".join(
        message(command, payload, ident=n) for n, (command, payload, _) in enumerate(REFUSED.values())
    )
    whole, pieces = Talk(opened=False), Talk(opened=False)
    expected, said, at = whole.session.receive(stream), b"", 0
    while at < len(stream):
        step = rng.choice([1, 3, 15, 16, 17, 40, 200])
        said += pieces.session.receive(stream[at : at + step])
        at += step
    assert said == expected, f"seed {seed}"
    assert len(expected) > 40 * HEADER.size


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bytes_do_more_than_end_the_session(data: st.DataObject) -> None:
    """Headers that look right with any payload, any bytes between, any descriptors: replies or a Violation, nothing leaks."""
    talk = Talk()
    given_fds: list[int] = []
    for _ in range(data.draw(st.integers(1, 8))):
        payload = data.draw(st.binary(max_size=64))
        command, flags = data.draw(st.integers(0, 17)), data.draw(st.sampled_from([0, 0, 0, 0x10, 1]))
        piece = data.draw(st.sampled_from([message(command, payload, flags), payload]))
        fds = list(range(len(given_fds), len(given_fds) + data.draw(st.integers(0, 3))))
        given_fds += fds
        try:
            talk.session.receive(piece, fds)
        except Violation:
            assert talk.session.state is State.CLOSED
            break
    talk.session.close()
    kept = [fd for call in talk.device.calls if call[0] == "irqs" for fd in call[2]]  # type: ignore[attr-defined]
    assert sorted([*talk.closed, *kept]) == given_fds
