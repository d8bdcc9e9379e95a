"""Taking a PCI device from the kernel's driver, and giving it back: unbind, driver_override, bind; whatever ends the taker.

In: a PCI address and the driver that is to have the device meanwhile. Out: a `Claim`, which holds a lock and is a file in RECORDS.
The one rule: what is needed to give the device back is on file before anything is changed, so that after a SIGKILL - the lock is free,
the file is there - the next taker, or `python -m guest.netpoll pmd release`, can do it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from guest.netpoll.drivers.pmd import hugepages
from guest.netpoll.drivers.pmd.bus import BusError

PCI = Path("/sys/bus/pci")
RECORDS = Path("/run/netpoll-pmd")
COMMAND, COMMAND_MEMORY, COMMAND_MASTER, COMMAND_INTX_DISABLE = 4, 1 << 1, 1 << 2, 1 << 10  # of configuration space
IFF_UP = 0x1
OURS = ("uio_pci_generic", "vfio-pci")


@dataclass(frozen=True, slots=True)
class Record:
    """How a device was found: its driver ("" for none), its driver_override, and what was added to the pool of hugepages since."""

    address: str
    driver: str
    override: str
    hugepages: int = 0


class Claim:
    """A device that is ours. `release` gives it back; twice is once."""

    def __init__(self, address: str, wanted: str) -> None:
        """Raises BusError, the device being as it was: ENODEV, EBUSY, EPERM, or what the kernel said."""
        self.folder = _folder(address)
        self.record = Record(address, driver_of(address), _override(address))
        self._lock = _lock(address)
        try:
            if (left := _recorded(address)) is not None:  # by somebody who was killed
                give_back(left)
                self.record = Record(address, driver_of(address), _override(address))
            refuse_if_in_use(address)
            _store(self.record)
            _bind_to(address, wanted)
        except BaseException:
            self.release()
            raise

    def note_hugepages(self, added: int) -> None:
        """So many are to be taken from the pool again, should this process not live to do it."""
        self.record = Record(self.record.address, self.record.driver, self.record.override, added)
        _store(self.record)

    def release(self) -> None:
        """Give back what was taken, if anything was. Raises BusError when the kernel's driver does not take its device."""
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        try:
            if _path(self.record.address).exists():  # else nothing was changed
                give_back(self.record)
        finally:
            os.close(lock)


def taken() -> list[tuple[Record, bool]]:
    """Every device on file, and whether its taker lives."""
    found = []
    for path in sorted(RECORDS.glob("*.json")):
        record = _recorded(path.stem)
        if record is not None:
            found.append((record, _locked(record.address)))
    return found


def release(address: str) -> Record:
    """Give a device back whose taker is gone. Raises BusError: ENOENT if nobody took it, EBUSY if its taker lives."""
    lock = _lock(address)
    try:
        record = _recorded(address)
        if record is None:
            raise BusError(errno.ENOENT, f"{address} is not on file as taken; `pmd list` tells what is")
        give_back(record)
        return record
    finally:
        os.close(lock)


def give_back(record: Record) -> None:
    """Bus mastering off, then the driver that it had, then the hugepages. Raises BusError if that driver does not take it."""
    address = record.address
    if (PCI / "devices" / address).exists():
        bound = driver_of(address)
        if bound in (*OURS, ""):
            clear_command(address, COMMAND_MASTER)
        if bound in OURS:
            _write(PCI / "drivers" / bound / "unbind", address)
        _write(PCI / "devices" / address / "driver_override", record.override or "\n")
        if record.driver and driver_of(address) != record.driver:
            _write(PCI / "drivers" / record.driver / "bind", address)
    hugepages.shrink(record.hugepages)
    _path(address).unlink(missing_ok=True)


def clear_command(address: str, bits: int) -> None:
    """Clear bits of a device's PCI command register."""
    fd = os.open(PCI / "devices" / address / "config", os.O_RDWR | os.O_CLOEXEC)
    try:
        command = int.from_bytes(os.pread(fd, 2, COMMAND), "little") & ~bits
        os.pwrite(fd, command.to_bytes(2, "little"), COMMAND)
    finally:
        os.close(fd)


def driver_of(address: str) -> str:
    """The driver that a PCI device is bound to, or ""."""
    try:
        return os.path.basename(os.readlink(PCI / "devices" / address / "driver"))
    except OSError:
        return ""


def pci_address(interface: str) -> str:
    """The PCI device below a network interface; virtio's is its parent. Raises BusError(ENODEV)."""
    path = Path(f"/sys/class/net/{interface}/device").resolve()
    for folder in (path, *path.parents):
        if (folder / "config").exists() and (PCI / "devices" / folder.name).exists():
            return folder.name
    raise BusError(errno.ENODEV, f"interface {interface} is not there, or not on a PCI device")


def interfaces(address: str) -> list[str]:
    """The network interfaces that a PCI device has."""
    folder = PCI / "devices" / address
    return sorted(path.name for pattern in ("net/*", "virtio*/net/*") for path in folder.glob(pattern))


def refuse_if_in_use(address: str) -> None:
    """Raises BusError(EBUSY) if an interface of the device is up or is a slave."""
    for name in interfaces(address):
        folder = Path("/sys/class/net") / name
        if (folder / "master").exists():
            master = (folder / "master").resolve().name
            raise BusError(
                errno.EBUSY, f"{address} is in use: {name} is a slave of {master}; take it out of there first"
            )
        if int((folder / "flags").read_text(), 16) & IFF_UP:
            raise BusError(errno.EBUSY, f"{address} is in use: {name} is up; `ip link set {name} down` first")


def _folder(address: str) -> Path:
    folder = PCI / "devices" / address
    if "/" in address or not (folder / "config").exists():
        there = ", ".join(sorted(path.name for path in (PCI / "devices").glob("*")))
        raise BusError(errno.ENODEV, f"no PCI device {address!r}; there are: {there or 'none'}")
    return folder


def _bind_to(address: str, wanted: str) -> None:
    """driver_override binds this device and no other of its kind (ABI/testing/sysfs-bus-pci)."""
    _load(wanted)
    if driver_of(address):
        _write(PCI / "devices" / address / "driver" / "unbind", address)
    _write(PCI / "devices" / address / "driver_override", wanted)
    _write(PCI / "drivers_probe", address)
    if driver_of(address) != wanted:
        raise BusError(errno.ENODEV, f"{wanted} does not take {address}; the kernel's log says why")


def _load(driver: str) -> None:
    if (PCI / "drivers" / driver).exists():
        return
    done = subprocess.run(["modprobe", driver], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode or not (PCI / "drivers" / driver).exists():
        why = done.stderr.strip() or "it registers no driver"
        raise BusError(errno.ENODEV, f"this kernel cannot load {driver}: {why}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise BusError(error.errno or errno.EIO, f"`echo {text.strip()} > {path}`: {error.strerror}") from error


def _override(address: str) -> str:
    text = (PCI / "devices" / address / "driver_override").read_text().strip()
    return "" if text == "(null)" else text


def _path(address: str) -> Path:
    return RECORDS / f"{address}.json"


def _store(record: Record) -> None:
    path = _path(record.address)
    path.with_suffix(".new").write_text(json.dumps(asdict(record)))
    path.with_suffix(".new").replace(path)


def _recorded(address: str) -> Record | None:
    try:
        values = json.loads(_path(address).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        _path(address).unlink()  # of no use to anybody
        return None
    return Record(str(values["address"]), str(values["driver"]), str(values["override"]), int(values["hugepages"]))


def _lock(address: str) -> int:
    """A descriptor that holds the device's lock. Raises BusError: EBUSY, naming who has it, or EPERM."""
    try:
        RECORDS.mkdir(mode=0o755, exist_ok=True)
        fd = os.open(RECORDS / f"{address}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BusError(error.errno or errno.EIO, f"{RECORDS}: {error.strerror}; taking a device is root's") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise BusError(errno.EBUSY, f"{address} is in use: process {who} drives it") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def _locked(address: str) -> bool:
    with suppress(OSError):
        fd = os.open(RECORDS / f"{address}.lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False
