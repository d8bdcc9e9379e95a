"""The parts of a device and the socket edge: memory, interrupts, config space, register tables; hostile clients on a real socket."""

from __future__ import annotations

import array
import errno
import fcntl
import mmap
import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from harness.testbed.process import spawn
from harness.testbed.template import sealed_memory
from harness.tests.test_vfio_user_session import VERSION, access, message
from harness.vfio_user import example, wire
from harness.vfio_user.config import BarKind, Capability, ConfigSpace, Identity, msi
from harness.vfio_user.device import PciDevice
from harness.vfio_user.dma import DmaMemory
from harness.vfio_user.errors import DmaFault, Refused
from harness.vfio_user.irq import Interrupts
from harness.vfio_user.registers import Register, RegisterFile
from harness.vfio_user.serve import BACKLOG, Listener, Loop
from harness.vfio_user.session import IrqSet
from harness.vfio_user.wire import HEADER, Command, Irq, Region, SetIrqs

PAGE = 4096


@pytest.fixture
def ram() -> Iterator[int]:
    fd = sealed_memory(16 * PAGE)
    yield fd
    os.close(fd)


def test_memory_is_shared_and_crosses_adjacent_ranges(ram: int) -> None:
    dma = DmaMemory()
    dma.map(3, 0, PAGE, ram, PAGE)
    dma.map(3, PAGE, PAGE, ram, 8 * PAGE)
    dma.write(PAGE - 2, b"abcd")
    assert os.pread(ram, 2, 2 * PAGE - 2) + os.pread(ram, 2, 8 * PAGE) == b"abcd"
    assert dma.read(PAGE - 2, 4) == b"abcd"
    dma.store16(2, 0x1234)
    dma.store32(PAGE + 4, 0xDEADBEEF)
    assert os.pread(ram, 2, PAGE + 2) == b"\x34\x12"
    assert os.pread(ram, 4, 8 * PAGE + 4) == b"\xef\xbe\xad\xde"


FAULTS = {
    "below": (lambda dma: dma.read(PAGE - 1, 1), "not mapped"),
    "over the end": (lambda dma: dma.read(3 * PAGE - 1, 2), "not mapped"),
    "far over the end": (lambda dma: dma.read(2 * PAGE, 1 << 40), "not mapped"),
    "high": (lambda dma: dma.read((1 << 64) - 1, 1), "not mapped"),
    "write to a range for reading": (lambda dma: dma.write(4 * PAGE, b"x"), "not allowed"),
    "read of a range for writing": (lambda dma: dma.read(5 * PAGE, 1), "not allowed"),
    "no descriptor": (lambda dma: dma.read(8 * PAGE, 1), "without a descriptor"),
    "odd index": (lambda dma: dma.store16(PAGE + 1, 1), "not aligned"),
    "odd word": (lambda dma: dma.store32(PAGE + 2, 1), "not aligned"),
    "store to a range for reading": (lambda dma: dma.store32(4 * PAGE, 1), "not allowed"),
}


@pytest.mark.parametrize(("touch", "why"), FAULTS.values(), ids=FAULTS.keys())
def test_no_access_leaves_what_is_mapped(ram: int, touch: object, why: str) -> None:
    dma = DmaMemory()
    dma.map(3, PAGE, 2 * PAGE, ram, 0)
    dma.map(1, 4 * PAGE, PAGE, ram, 0)
    dma.map(2, 5 * PAGE, PAGE, ram, 0)
    dma.map(3, 8 * PAGE, PAGE, None, 0)
    for warm in (False, True):  # also when the last access was inside
        if warm:
            dma.read(PAGE, 1)
        with pytest.raises(DmaFault, match=why):
            touch(dma)  # type: ignore[operator]


@pytest.mark.parametrize(("iova", "size"), [(0, 2), (1, 1), (2, 2), (0, 9), (3, 1)])
def test_no_address_is_mapped_twice(ram: int, iova: int, size: int) -> None:
    dma = DmaMemory()
    dma.map(3, PAGE, 3 * PAGE, ram, 0)
    with pytest.raises(Refused) as refused:
        dma.map(3, iova * PAGE, size * PAGE, ram, 0)
    assert refused.value.errno == errno.EEXIST


def test_unmapping(ram: int) -> None:
    dma = DmaMemory()
    dma.map(3, PAGE, PAGE, ram, 0)
    dma.map(3, 2 * PAGE, 2 * PAGE, ram, 0)
    for iova, size, code in ((0, PAGE, errno.ENOENT), (3 * PAGE, PAGE, errno.EINVAL), (0, 3 * PAGE, errno.EINVAL)):
        with pytest.raises(Refused) as refused:
            dma.unmap(iova, size)
        assert refused.value.errno == code
    dma.read(PAGE, 8)
    dma.unmap(0, 4 * PAGE)
    with pytest.raises(DmaFault):
        dma.read(PAGE, 1)


def test_a_descriptor_that_is_no_memory_is_refused(ram: int) -> None:
    reader, writer = os.pipe()
    dma = DmaMemory()
    cases = [(reader, 0, PAGE), (ram, 16 * PAGE, PAGE), (ram, 0, 17 * PAGE), (ram, 1 << 62, PAGE)]
    for fd, offset, size in cases:
        with pytest.raises(Refused):
            dma.map(3, 0, size, fd, offset)
    with open("/dev/null", "rb") as file, pytest.raises(Refused):
        dma.map(3, 0, PAGE, file.fileno(), 0)
    os.close(reader)
    os.close(writer)


def unsealed(_folder: Path) -> int:
    return os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)


def sealed_against_growth(_folder: Path) -> int:
    fd = unsealed(_folder)
    os.ftruncate(fd, PAGE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    return fd


def on_disk(folder: Path) -> int:
    return os.open(folder / "ram", os.O_RDWR | os.O_CREAT)


@pytest.mark.parametrize("made", [unsealed, sealed_against_growth, on_disk])
def test_a_file_that_its_owner_can_shrink_does_not_end_the_server(
    made: Callable[[Path], int], served: Served, tmp_path: Path
) -> None:
    """Were it mapped, the doorbell would end this process with SIGBUS."""
    loop, path, _, remarks = served
    client, fd = Client(loop, path), made(tmp_path)
    os.ftruncate(fd, PAGE)
    client.send(VERSION)
    client.send(message(Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 0, PAGE)), (fd,))
    client.serve()
    os.ftruncate(fd, 0)
    client.send(write(example.SOURCE, 0) + write(example.TARGET, 64) + write(example.LENGTH, 14))
    client.send(write(example.DOORBELL, 1) + message(Command.REGION_READ, access(example.STATUS, 0, 4)))
    assert client.serve()[-4:] == b"\2\0\0\0", "a fault of the device"
    assert any("can shrink" in remark for remark in remarks), remarks
    os.close(fd)


def test_unmapping_while_somebody_looks_is_no_crash(ram: int) -> None:
    dma = DmaMemory()
    dma.map(3, 0, PAGE, ram, 0)
    view = dma._ranges[0].bytes_[0:8]
    dma.clear()
    assert bytes(view) == b"\0" * 8
    assert isinstance(view.obj, mmap.mmap)


def heard(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0]) and bool(os.read(fd, 8))


def irq_set(flags: int, index: int = 0, count: int = 1, data: bytes = b"") -> IrqSet:
    return IrqSet(SetIrqs(flags), index, 0, count, data)


def test_intx_is_a_level_that_masks_itself() -> None:
    irqs, fd = Interrupts({Irq.INTX: 1}), os.eventfd(0)
    irqs.set(irq_set(0x24), [os.dup(fd)])
    irqs.level(True)
    assert heard(fd)
    irqs.level(True)
    assert not heard(fd), "masked until the client says otherwise"
    irqs.set(irq_set(0x11), [])
    assert heard(fd), "unmasked, and still asserted"
    irqs.level(False)
    irqs.set(irq_set(0x11), [])
    assert not heard(fd)
    irqs.set(irq_set(0x09), [])
    irqs.level(True)
    assert not heard(fd), "masked by the client"
    irqs.close()
    os.close(fd)


def test_intx_that_config_space_disables_is_shown_and_not_told() -> None:
    """As uio_pci_generic masks it: pci_check_and_mask_intx() looks for it in STATUS, and sets a bit of COMMAND."""
    config = ConfigSpace(Identity(0x1234, 0x5678, 0x020000))
    device = PciDevice(config, {}, {Irq.INTX: 1})
    told = os.eventfd(0, os.EFD_NONBLOCK)
    device.set_irqs(IrqSet(SetIrqs.DATA_EVENTFD | SetIrqs.ACTION_TRIGGER, Irq.INTX, 0, 1, b""), [os.dup(told)])
    device.region_write(Region.CONFIG, 4, b"\x00\x04")
    device.irqs.level(True)
    assert device.region_read(Region.CONFIG, 6, 2) == b"\x08\x00"
    with pytest.raises(BlockingIOError):
        os.eventfd_read(told)
    device.region_write(Region.CONFIG, 4, b"\x00\x00")
    assert os.eventfd_read(told) == 1
    device.irqs.level(False)
    assert device.region_read(Region.CONFIG, 6, 2) == b"\x00\x00"
    os.close(told)


def test_msi_is_an_edge_for_whoever_is_bound() -> None:
    irqs, fd = Interrupts({Irq.MSI: 2}), os.eventfd(0)
    assert not irqs.trigger(Irq.MSI)
    irqs.set(irq_set(0x24, Irq.MSI), [os.dup(fd)])
    assert irqs.trigger(Irq.MSI)
    assert heard(fd)
    irqs.set(irq_set(0x22, Irq.MSI, 2, b"\1\0"), [])
    assert heard(fd), "the client's own trigger"
    irqs.set(irq_set(0x21, Irq.MSI, 0), [])
    assert not irqs.trigger(Irq.MSI)
    os.close(fd)


def test_an_eventfd_that_is_full_blocks_nobody_and_a_pipe_is_refused() -> None:
    irqs, fd = Interrupts({Irq.MSI: 1}), os.eventfd(0)
    os.eventfd_write(fd, 0xFFFF_FFFF_FFFF_FFFE)
    irqs.set(irq_set(0x24, Irq.MSI), [os.dup(fd)])
    assert irqs.trigger(Irq.MSI)
    pipe = os.pipe()
    with pytest.raises(Refused, match="no eventfd"):
        irqs.set(irq_set(0x24, Irq.MSI), [pipe[1]])
    assert irqs.bound(Irq.MSI), "the old one stays"
    for each in (fd, *pipe):
        os.close(each)


def test_config_space_as_a_bridge_sees_it() -> None:
    config = ConfigSpace(Identity(0x14E4, 0x169B, 0x020000, 2), (BarKind(0, 1 << 16, wide=True),), (msi(0xE8),))
    assert config.read(0, 4) == bytes.fromhex("e4149b16")
    config.write(0x10, b"\xff" * 8)
    assert config.read(0x10, 8) == bytes.fromhex("0400ffffffffffff"), "size and kind of a 64-bit BAR"
    config.write(0x00, b"\xff" * 4)
    assert config.word(0) == 0x169B14E4, "an identity cannot be written"
    assert (config.read(0x34, 1), config.read(0xE8, 2)) == (b"\xe8", b"\x05\x00")
    config.write(0x04, b"\x06\x04")
    assert config.bus_master
    config.reset()
    assert not config.bus_master


def test_capabilities_that_overlap_are_our_mistake() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        ConfigSpace(Identity(1, 2, 3), (), (msi(0x40), Capability(1, 0x44, b"\1" * 6)))


def test_registers_of_any_width() -> None:
    written: list[int] = []
    file = RegisterFile(
        64,
        (
            Register(0, "ID", 0x12345678, writable=0),
            Register(4, "DOORBELL", write=written.append),
            Register(8, "COUNT", read=lambda value: value + 1),
            Register(12, "HALF", 0xAAAA0000, writable=0xFFFF),
        ),
    )
    file.write(0, b"\0" * 4)
    assert file.read(1, 2) == b"\x56\x34"
    file.write(5, b"\x01")
    assert written == [0x100]
    assert file.read32(8) == 1
    file.write32(12, 0x12345678)
    assert file.read32(12) == 0xAAAA5678
    file.write(14 + 4, bytes(range(1, 8)))
    assert file.read(16, 12) == bytes([0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0])
    file.reset()
    assert file.read32(12) == 0xAAAA0000


class Client:
    """A client on a real socket, as careless as it likes."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self.loop = loop
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.sock.setblocking(False)

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], rights)

    def serve(self, turns: int = 4) -> bytes:
        """Let the server work and return what it said; b"" also when it hung up."""
        said = b""
        for _ in range(turns):
            self.loop.run_once(0.01)
            try:
                said += self.sock.recv(1 << 20)
            except (BlockingIOError, ConnectionError):
                continue
        return said

    def hung_up(self) -> bool:
        self.loop.run_once(0.01)
        try:
            return self.sock.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Loop, Path, example.CopyEngine, list[str]]]:
    remarks: list[str] = []
    loop, engine = Loop(remarks.append), example.CopyEngine()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "s"))
    sock.listen(4)
    listener = Listener(loop, sock, engine.device, remarks.append)
    yield loop, tmp_path / "s", engine, remarks
    listener.close()
    loop.close()


Served = tuple[Loop, Path, example.CopyEngine, list[str]]


def write(offset: int, value: int) -> bytes:
    return message(Command.REGION_WRITE, access(offset, 0, 4, value.to_bytes(4, "little")), 0x10)


def test_a_timer_is_not_kept_for_a_whole_millisecond() -> None:
    """epoll would round 0.1 ms up. The best of many, since whoever else has the CPU makes it late, too; a loop's first wait is asleep."""
    took: list[float] = []
    for _ in range(50):
        loop, over, began = Loop(), list[float](), time.monotonic()
        loop.call_later(1e-4, partial(over.append, 1.0))
        while not over:
            loop.run_once(1.0)
        took.append(time.monotonic() - began)
        loop.close()
    assert 1e-4 <= min(took) < 9e-4


def test_the_example_copies_guest_memory_and_interrupts(served: Served, ram: int) -> None:
    loop, path, _, _ = served
    client, fd = Client(loop, path), os.eventfd(0, os.EFD_NONBLOCK)
    os.pwrite(ram, b"the last words", 0x100)
    client.send(VERSION)
    client.send(message(Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 0, 16 * PAGE)), (ram,))
    client.send(message(Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x24, Irq.MSIX, 0, 1)), (fd,))
    client.send(write(example.SOURCE, 0x100) + write(example.TARGET, 0x3000) + write(example.LENGTH, 14))
    client.send(write(example.DOORBELL, 1) + message(Command.REGION_READ, access(example.STATUS, 0, 4)))
    assert client.serve(6)[-4:] == b"\1\0\0\0"
    assert os.pread(ram, 14, 0x3000) == b"the last words"
    assert heard(fd)
    client.send(write(example.SOURCE, 0x7000_0000) + write(example.DOORBELL, 1))
    client.send(message(Command.REGION_READ, access(example.STATUS, 0, 4)))
    assert client.serve()[-4:] == b"\3\0\0\0", "DMA out of range is the device's fault bit, not the server's end"
    os.close(fd)


def test_a_second_client_is_turned_away_and_the_next_one_finds_a_fresh_device(served: Served) -> None:
    loop, path, engine, _ = served
    first = Client(loop, path)
    first.send(VERSION + write(example.LENGTH, 77))
    assert first.serve()
    second = Client(loop, path)
    assert second.hung_up()
    first.sock.close()
    loop.run_once(0.01)
    assert engine.registers.read32(example.LENGTH) == 0
    third = Client(loop, path)
    third.send(VERSION)
    assert third.serve()


def test_a_violation_ends_the_connection_and_not_the_server(served: Served) -> None:
    loop, path, _, remarks = served
    for seed in range(30):
        rng = random.Random(seed)
        client = Client(loop, path)
        client.send(VERSION if seed % 2 else rng.randbytes(40))
        client.send(rng.randbytes(rng.randint(1, 5000)))
        client.serve()
        client.sock.close()
        loop.run_once(0.01)
    assert any("violation" in remark for remark in remarks)
    assert not any("defect" in remark for remark in remarks), remarks
    last = Client(loop, path)
    last.send(VERSION)
    assert last.serve()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_of_refused_and_broken_messages_do_not_pile_up(served: Served, ram: int) -> None:
    loop, path, _, _ = served
    client = Client(loop, path)
    client.send(VERSION)
    client.serve()
    before = open_fds()
    for _ in range(20):
        client.send(message(Command.DEVICE_RESET), (ram, ram))
        client.send(message(Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, 0, 1, 4096)), (ram,))
        client.send(message(Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x24, Irq.MSIX, 0, 1)), (ram,))
    client.serve(10)
    assert open_fds() == before
    client.send(message(Command.DEVICE_RESET), (ram,) * 40)
    assert client.hung_up(), "more descriptors than were agreed"
    assert open_fds() <= before


def test_a_client_that_reads_nothing_is_cut_off_and_stalls_nobody(served: Served) -> None:
    loop, path, _, remarks = served
    client = Client(loop, path)
    client.send(VERSION)
    question = message(Command.REGION_READ, access(0, 0, 2048)) * 16
    asked = 0
    while asked < 4 * BACKLOG and not any("does not take" in remark for remark in remarks):
        try:
            client.send(question)
            asked += 16 * 2064
        except BlockingIOError:
            pass
        except ConnectionError:
            break
        loop.run_once(0)
    assert any("does not take" in remark for remark in remarks)


def test_two_devices_in_one_process(served: Served, tmp_path: Path) -> None:
    loop, path, engine, remarks = served
    other, sock = example.CopyEngine(), socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "t"))
    sock.listen(1)
    listener = Listener(loop, sock, other.device, remarks.append)
    one, two = Client(loop, path), Client(loop, tmp_path / "t")
    one.send(VERSION + write(example.LENGTH, 1))
    two.send(VERSION + write(example.LENGTH, 2))
    one.serve()
    two.serve()
    assert (engine.registers.read32(example.LENGTH), other.registers.read32(example.LENGTH)) == (1, 2)
    listener.close()


def test_the_example_serves_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "copy"
    server = spawn([sys.executable, "-m", "harness.vfio_user.example", str(path)], stdout=subprocess.PIPE)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            _connect(client, path)
            client.settimeout(10)
            client.send(VERSION + message(Command.REGION_READ, access(0, 0, 4)))
            said = client.recv(65536)
            while not said.endswith(b"COPY"):
                said += client.recv(65536)
            assert HEADER.unpack_from(said)[1] == Command.VERSION
    finally:
        server.kill()
        server.wait()
        if server.stdout:
            server.stdout.close()


def _connect(client: socket.socket, path: Path) -> None:
    """The socket appears when the server listens: wait for it, 10 s at most."""
    import time

    deadline = time.monotonic() + 10
    while True:
        try:
            client.connect(str(path))
            return
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline, "the example does not listen"
            time.sleep(0.02)


def test_status_tells_of_the_pin_and_the_command_register_silences_it() -> None:
    """What uio_pci_generic and vfio-pci live on: pci_check_and_mask_intx(), pci_check_and_unmask_intx()."""
    device = example.CopyEngine().device
    heard = os.eventfd(0, os.EFD_NONBLOCK)
    device.set_irqs(IrqSet(SetIrqs.DATA_EVENTFD | SetIrqs.ACTION_TRIGGER, Irq.INTX, 0, 1, b""), [os.dup(heard)])
    pending = 0x08
    assert not device.region_read(wire.Region.CONFIG, 6, 1)[0] & pending
    device.region_write(wire.Region.CONFIG, 4, b"\x00\x04")
    device.irqs.level(True)
    assert device.region_read(wire.Region.CONFIG, 4, 4)[2] & pending, "asserted, though nobody hears"
    with pytest.raises(BlockingIOError):
        os.eventfd_read(heard)
    device.region_write(wire.Region.CONFIG, 4, b"\x00\x00")
    assert os.eventfd_read(heard) == 1
    device.irqs.level(False)
    assert not device.region_read(wire.Region.CONFIG, 6, 2)[0] & pending
    os.close(heard)
