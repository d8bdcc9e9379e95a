"""RAM templates: a guest that has booted once, stopped, and from which every case starts.

In: a QEMU, an accelerator, a MachinePlan and its images. Out: a folder of the cache with `ram` (the guest's memory), `state`
(QEMU's device state), `kallsyms` (names for addresses) and `template.json`. Rule: content-addressed by all of that, made under a lock, published by one
rename; a maker that was killed leaves nothing that is taken for a template.

A clone maps `ram` copy-on-write (`share=off`), so clones share the page cache and the file is never written. Devices that must
see guest memory from another process (vfio-user) cannot use such a private mapping; for them `clone_memory(shared=True)`
copies the file's non-zero pages into a memfd of the clone's own, which QEMU maps `share=on` through /proc/self/fd.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import images
from harness.observe.events import Clock
from harness.plan.model import MachinePlan
from harness.testbed import own_guest, symbols
from harness.testbed.channels import Login
from harness.testbed.errors import GuestSilent, TestbedError
from harness.testbed.machine import Machine, Observers
from harness.testbed.own_guest import OwnGuest
from harness.testbed.qemu import Accel, Boot, Channels, Disk, Memory, machine_argv
from harness.testbed.ticking import ticking

VERSION = 3  # of what this module makes; a change makes every older template stale
INITRD, COPY = "initrd", 1 << 24  # joined from several, while the template boots; bytes
KEEP, UNUSED = 8, 3600.0  # templates, seconds: what `prune` leaves
BOOT_DEADLINE = {"kvm": 60.0, "tcg": 180.0}  # seconds to the agent's first answer
CAPABILITIES = {
    "capabilities": [
        {"capability": "x-ignore-shared", "state": True},  # RAM stays in its file
        {"capability": "events", "state": True},  # MIGRATION events instead of asking again and again
    ]
}


@dataclass(frozen=True)
class Ingredients:
    """Everything a template follows from."""

    qemu: tuple[str, ...]
    qemu_digest: str
    accel: Accel
    machine: MachinePlan
    boot: Boot | None  # None: from the disk of `own`
    image_digest: str  # of kernel and guest image together
    login: Login | None = None  # how the guest is reached over ssh
    own: OwnGuest | None = None  # a guest that we did not build

    def digest(self) -> str:
        """The template's name in the cache."""
        host_cpu = _host_cpu() if self.accel == "kvm" else ""
        shape = clone_argv(replace(self, qemu=()), Memory("", False), Channels(0, 0, 0, 0, 0))
        known_as = self.login.host_key if self.login else ""  # an image that was pruned and made again has new keys
        parts = [VERSION, self.qemu_digest, host_cpu, shape, self.machine.model_dump(), self.image_digest, known_as]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Template:
    """A template on disk. `hello` is what its agent said: kernel release and Python version."""

    folder: Path
    hello: Mapping[str, Any]

    @property
    def ram(self) -> Path:
        return self.folder / "ram"

    @property
    def kallsyms(self) -> Path:
        """The kernel's functions with their addresses; for `harness.testbed.symbols`."""
        return self.folder / "kallsyms"

    @property
    def state(self) -> Path:
        return self.folder / "state"


def find(cache: Path, ingredients: Ingredients) -> Template | None:
    """The template if it is there."""
    folder = cache / "templates" / ingredients.digest()
    with contextlib.suppress(OSError):
        os.utime(folder / "template.json")  # the mark of its last use, for `prune`
    try:
        return Template(folder, json.loads((folder / "template.json").read_text())["hello"])
    except (OSError, ValueError, KeyError):
        return None


async def ensure(cache: Path, ingredients: Ingredients, say: Callable[[str], None]) -> Template:
    """The template, made now if need be. Safe with several makers at once: one makes, the others wait and use it.

    Raises QemuDied or GuestSilent with the console's tail, TestbedError on a full disk.
    """
    if (found := find(cache, ingredients)) is not None:
        return found
    home = cache / "templates"
    home.mkdir(parents=True, exist_ok=True)
    digest = ingredients.digest()
    with _locked(home / f".{digest}.lock"):
        if (found := find(cache, ingredients)) is not None:
            return found
        work = home / f".{digest}.new"
        shutil.rmtree(work, ignore_errors=True)  # a killed maker's; we hold its lock
        work.mkdir()
        try:
            await _make(work, ingredients, say)
            os.rename(work, home / digest)
        except OSError as error:
            raise TestbedError(
                f"no RAM template in {home}: {error.strerror}",
                "free some space, or move the cache: NETPOLL_HARNESS_CACHE",
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    made = find(cache, ingredients)
    assert made is not None
    prune(cache)
    return made


def prune(cache: Path, keep: int = KEEP, unused: float = UNUSED) -> list[Path]:
    """Remove all but the `keep` templates used last, if nobody has used them for `unused` seconds; returns what went.

    A clone that runs loses nothing: it has its files open. Half-made templates of dead makers go, too, and locks of what is no more.
    """
    home = cache / "templates"
    used = sorted(((_last_use(mark), mark.parent) for mark in home.glob("*/template.json")), reverse=True)
    stale = [folder for when, folder in used[keep:] if time.time() - when >= unused]
    for folder in stale:
        (folder / "template.json").unlink(missing_ok=True)  # first, so that nobody finds half of it
        shutil.rmtree(folder, ignore_errors=True)
    for digest in {each.stem[1:] for each in (*home.glob(".*.new"), *home.glob(".*.lock"))}:
        lock = home / f".{digest}.lock"
        with contextlib.suppress(BlockingIOError), _locked(lock, wait=False):
            shutil.rmtree(home / f".{digest}.new", ignore_errors=True)
            if not (home / digest).exists():
                lock.unlink()
    return stale


def _last_use(mark: Path) -> float:
    try:
        return mark.stat().st_mtime
    except FileNotFoundError:  # another prune was faster
        return 0.0


async def _make(work: Path, ingredients: Ingredients, say: Callable[[str], None]) -> None:
    machine = ingredients.machine
    _require_room(work, machine.memory << 20)
    began = time.monotonic()
    say(
        f"booting {machine.kernel} once for the RAM template ({machine.machine}, {machine.memory} MiB, {ingredients.accel})"
    )
    with (work / "ram").open("wb") as ram:
        ram.truncate(machine.memory << 20)
    panicked: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    last = [""]

    def console_line(_t: float, text: str) -> None:
        last[0] = "".join(each for each in text if each.isprintable())
        if "Kernel panic" in text and not panicked.done():
            panicked.set_result(text)

    quiet = Observers(lambda *_: None, console_line, lambda *_: None)
    with _to_boot(work, ingredients) as (argv_of, inherit):
        start = Machine.start(argv_of, quiet, Clock.start(), work / "console.log", inherit)
        async with start as guest, ticking(lambda: last[0]):
            hello = await _moved_in(guest, ingredients, inherit, panicked)
            if machine.capture:
                await load_capture(guest)
            await _save(guest, work)
    (work / INITRD).unlink(missing_ok=True)
    seconds = time.monotonic() - began
    (work / "template.json").write_text(
        json.dumps({"hello": hello, "seconds": round(seconds, 2), "machine": machine.model_dump()})
    )
    say(f"template ready in {seconds:.1f} s: Linux {hello['release']}")


@contextlib.contextmanager
def _to_boot(work: Path, ingredients: Ingredients) -> Iterator[tuple[Callable[[Channels], list[str]], Sequence[int]]]:
    """The command of the machine that is to become a template, and the descriptors that it inherits."""
    memory = Memory(str(work / "ram"), True)
    if ingredients.own is None:
        if ingredients.boot is not None and ingredients.boot.more is not None:
            join((ingredients.boot.initrd, ingredients.boot.more), work / INITRD)
        yield lambda channels: boot_argv(ingredients, memory, channels, work), ()
        return
    ingredients.own.overlay(work)
    with own_guest.door(work) as folder_fd:
        management = own_guest.management_argv(ingredients.machine.machine, folder_fd)
        yield lambda channels: [*boot_argv(ingredients, memory, channels, work), *management], (folder_fd,)


async def _moved_in(
    guest: Machine, ingredients: Ingredients, inherit: Sequence[int], panicked: asyncio.Future[str]
) -> Mapping[str, Any]:
    """The agent's first answer; into a guest that we did not build it has to be brought."""
    deadline = BOOT_DEADLINE[ingredients.accel]
    if ingredients.own is not None and ingredients.login is not None:
        patience = own_guest.PATIENCE[ingredients.accel]
        await _unless(own_guest.move_in(guest, ingredients.login, inherit[0], patience), panicked)
    try:
        asked = guest.agent.ask("hello", within=deadline)
        hello: Mapping[str, Any] = await guest.alive(_unless(asked, panicked), deadline + 1, "the agent's first answer")
        return hello
    except GuestSilent as silent:
        raise GuestSilent(
            f"{silent.what}\n{guest.console.tail(25)}",
            "the guest's console is above; has the kernel virtio_console?",
        ) from silent


async def load_capture(guest: Machine) -> None:
    """Put the capture kernel beside the running one, once for all cases."""
    files = {"kernel": f"/{images.CAPTURE_KERNEL}", "initrd": f"/{images.CAPTURE_INITRD}"}
    await guest.alive(guest.agent.ask("capture_load", files, 60), 61, "the capture kernel's loading")


async def _save(guest: Machine, work: Path) -> None:
    """Stop the machine for good and put all but its memory into files; that is in one already."""
    packed = await guest.alive(guest.agent.ask("kallsyms", within=60), 61, "the kernel's symbols")
    (work / "kallsyms").write_text(symbols.unpack(str(packed["packed"])))
    await guest.qmp.execute("stop")
    await guest.qmp.execute("migrate-set-capabilities", CAPABILITIES)
    await guest.qmp.execute("migrate", {"uri": f"file:{work / 'state'}"})
    await _migration(guest, 60, "the saved device state")


async def _unless(answer: Coroutine[Any, Any, Any], panicked: asyncio.Future[str]) -> Any:
    """The answer, or GuestSilent at once if the guest panics before it."""
    work = asyncio.ensure_future(answer)
    await asyncio.wait({work, panicked}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        return work.result()
    work.cancel()
    raise GuestSilent(f"the guest panicked while it booted: {panicked.result()}")


def boot_argv(ingredients: Ingredients, memory: Memory, channels: Channels, folder: Path | None = None) -> list[str]:
    """The command of a machine that boots: a template in the making, or a case without one. `folder`: where the overlay of a
    guest that we did not build is. Raises TestbedError for such a guest without a folder: only its template boots."""
    start: Boot | Disk | None = ingredients.boot
    if ingredients.boot is not None and ingredients.boot.more is not None and folder is not None:
        start = replace(ingredients.boot, initrd=folder / INITRD)
    if start is None:
        if folder is None:
            raise TestbedError("a disk of one's own boots for its template only")
        start = Disk(folder / own_guest.OVERLAY, snapshot=False)
    return machine_argv(ingredients.qemu, ingredients.machine, ingredients.accel, memory, channels, start)


async def _migration(guest: Machine, within: float, what: str) -> None:
    """Wait for QEMU's word that a migration, either way, is over."""
    end = await guest.qmp_event("MIGRATION", within, what, lambda data: data.get("status") in ("completed", "failed"))
    if end["status"] == "failed":
        raise TestbedError(f"{what}: QEMU says that it failed: {await guest.qmp.execute('query-migrate')}")


def clone_argv(
    ingredients: Ingredients, memory: Memory, channels: Channels, folder: Path = Path("TEMPLATE")
) -> list[str]:
    """The command of a clone. `folder`: the template's."""
    disk = None if ingredients.own is None else Disk(folder / own_guest.OVERLAY, snapshot=True)
    return machine_argv(ingredients.qemu, ingredients.machine, ingredients.accel, memory, channels, disk=disk)


async def restore(guest: Machine, template: Template) -> None:
    """Load the template's device state into a fresh clone and let it run."""
    await guest.qmp.execute("migrate-set-capabilities", CAPABILITIES)
    await guest.qmp.execute("migrate-incoming", {"uri": f"file:{template.state}"})
    await _migration(guest, 30, "the restored machine")
    await guest.qmp.execute("cont")


def join(parts: Sequence[Path], whole: Path) -> None:
    """Initramfs archives one after the other: the kernel unpacks each (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    with whole.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out, COPY)


def sealed_memory(size: int) -> int:
    """A memfd of `size` bytes that nobody can shrink: a process that maps it would die of SIGBUS at what is gone."""
    fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


@contextlib.contextmanager
def blank_memory(mebibytes: int) -> Iterator[tuple[Memory, Sequence[int]]]:
    """RAM for a machine that boots by itself; as `clone_memory`."""
    fd = sealed_memory(mebibytes << 20)
    try:
        yield Memory(f"/proc/self/fd/{fd}", True), (fd,)
    finally:
        os.close(fd)


@contextlib.contextmanager
def clone_memory(template: Template, shared: bool) -> Iterator[tuple[Memory, Sequence[int]]]:
    """A clone's RAM: the memory backend and the descriptors that QEMU must inherit for it."""
    if not shared:
        yield Memory(str(template.ram), False), ()
        return
    fd = filled_memory(template)
    try:
        yield Memory(f"/proc/self/fd/{fd}", True), (fd,)
    finally:
        os.close(fd)


def filled_memory(template: Template) -> int:
    """A memfd with what is in the template's memory."""
    fd = sealed_memory(template.ram.stat().st_size)
    try:
        _copy_sparse(template.ram, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _copy_sparse(source: Path, target: int) -> None:
    """Copy what is data, leave holes as holes. `target` has the size of `source`."""
    with source.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            os.lseek(target, start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(target, file.fileno(), start, end - start)
            offset = end


@contextlib.contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold `path` exclusively; the kernel lets go when the process ends, however it ends. BlockingIOError if it is held
    and we do not wait."""
    fd = _open_locked(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        os.close(fd)


def _open_locked(path: Path, how: int) -> int:
    """Again if `prune` removed the file between our opening and locking it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, how)
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + (64 << 20):
        raise TestbedError(
            f"a RAM template needs {size >> 20} MiB in {folder.parent}, {free >> 20} MiB are free",
            "free some space (netpoll-harness images prune), or move the cache: NETPOLL_HARNESS_CACHE",
        )


def _host_cpu() -> str:
    """What `-cpu host` depends on: model and flags of the first CPU."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in first if line.startswith(("model name", "flags", "microcode")))
