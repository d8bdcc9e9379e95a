"""`netpoll-harness doctor`: what this machine can do for a case, with the remedy for each no.

In: a Bench (which QEMU, which cache, which mirror). Out: one `Finding` a subject, and whether cases can run. Rule: what can be
tried is tried; nothing is changed unless `--fix` was said, and then only what is named here.

    subject     tried or looked at                                                  fixed by --fix
    system      x86-64, Python
    namespace   entering one
    tap         opening one in that namespace                                       modprobe tun, mknod /dev/net/tun (root)
    capture     a packet ring on that tap
    apt         the programs that fetch and unpack
    mirror      the keyring, and one small file fetched by apt's own means
    disk        room in the cache                                                   pruning images and templates
    memory      what is free, or what the control group leaves
    images      QEMU with vfio-user, kernel, guest                                  building them
    kvm         starting a kernel, as remembered since the host booted              trying again
    copies      a C compiler, without KVM
    template    for the usual machine                                               booting the guest once
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

import images
from harness.plan.compile import machine_plan
from harness.run import Bench
from harness.scenario.model import Guest, Nic
from harness.testbed import template
from harness.testbed.accel import MEMORY
from harness.testbed.capacity import available_memory, carried, guest_needs
from harness.testbed.errors import TestbedError
from harness.testbed.host import Network, Refusal, try_network
from images.aptroot import AptRoot, check_host
from images.forkable import compiler
from images.mirror import Mirror, find_mirror
from images.recipes import KERNELS, QEMU, USERLAND

MiB = 1 << 20
IMAGES_ROOM, TEMPLATE_ROOM = 1000 * MiB, 330 * MiB  # of the cache: a first fetch with its indices, one template
MIRROR_SECONDS = 30.0
APT_HELPER = Path("/usr/lib/apt/apt-helper")  # apt's own fetcher: knows the host's proxies and transports
USUAL = Guest(nics={"n0": Nic(model="virtio-net")})
FIX = "netpoll-harness doctor --fix"


class State(StrEnum):
    YES = "yes"
    WEAK = "weak"  # cases run, but not as well as they could
    NO = "no"  # cases cannot run


@dataclass(frozen=True)
class Finding:
    """One subject. `fix` changes the machine so that the answer may be better next time; it may raise what its work raises."""

    subject: str
    state: State
    said: str
    remedy: str = ""
    fix: Callable[[], object] | None = None


def examine(bench: Bench) -> Iterator[Finding]:
    """All subjects, in an order in which each can lean on those before it."""
    yield _system()
    yield from _network(try_network())
    supply = list(_supply(bench))
    there = _missing_images(bench) == []
    yield from (_only_for_new_images(finding) if there else finding for finding in supply)
    disk = _disk(bench, there)
    yield disk
    yield _memory(available_memory())
    can_fetch = all(finding.state == State.YES for finding in (*supply, disk))
    yield _images(bench, can_fetch)
    if there:
        yield from _guests(bench)


def can_run(findings: list[Finding]) -> bool:
    return all(finding.state != State.NO for finding in findings)


def lines(finding: Finding) -> Iterator[str]:
    """For the terminal: one line, and the remedy below it."""
    yield f"{finding.state:5} {finding.subject:10} {finding.said}"
    if finding.remedy:
        yield f"{'':16} -> {finding.remedy}"


def mend(findings: list[Finding], say: Callable[[str], None]) -> None:
    """Do what can be done about each that is not well. What cannot be mended is said, and the next one tried."""
    for finding in findings:
        if finding.fix is None:
            continue
        say(f"fixing {finding.subject}: {finding.said}")
        try:
            finding.fix()
        except (images.ImageError, TestbedError, OSError, subprocess.CalledProcessError) as error:
            say(f"{finding.subject} could not be fixed: {error}")


def _system() -> Finding:
    system = (
        f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    )
    if platform.machine() not in ("x86_64", "amd64"):
        return Finding("system", State.NO, system, "the images hold x86-64 programs: use an x86-64 machine")
    return Finding("system", State.YES, system)


def _network(tried: Network) -> Iterator[Finding]:
    who = "as root" if os.geteuid() == 0 else "with a user namespace, without root"
    subjects = (
        ("namespace", tried.namespace, f"a network namespace of one's own, {who}", None),
        ("tap", tried.tap, "a tap in that namespace", make_tun),
        ("capture", tried.capture, "a packet ring on that tap", None),
    )
    for subject, refused, yes, fix in subjects:
        if isinstance(refused, Refusal):
            said = f"{refused.what}; cases run over datagram sockets instead of taps"
            yield Finding(subject, State.WEAK, said, refused.remedy, fix if os.geteuid() == 0 else None)
            return  # what comes after it could not be tried
        yield Finding(subject, State.YES, yes)


def make_tun(device: Path = Path("/dev/net/tun")) -> None:
    """Load the module, and make the device node where a container lacks it (Documentation/admin-guide/devices.txt: 10, 200)."""
    if (modprobe := shutil.which("modprobe")) is not None:
        subprocess.run([modprobe, "-q", "tun"], check=False)
    if not device.exists():
        device.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(10, 200))


def _supply(bench: Bench) -> Iterator[Finding]:
    """Where images come from; without apt nobody can ask the mirror."""
    yield (apt := _apt())
    if apt.state is State.YES:
        yield _mirror(bench)


def _apt() -> Finding:
    try:
        check_host()
    except images.ImageError as error:
        return _of_image_error("apt", error)
    return Finding("apt", State.YES, "apt-get, apt-config and dpkg-deb are here")


def _mirror(bench: Bench) -> Finding:
    try:
        mirror = find_mirror(bench.options.mirror)
    except images.ImageError as error:
        return _of_image_error("mirror", error)
    key = mirror.signed_by if "BEGIN PGP" not in mirror.signed_by else "a key of the host's sources"
    if (trouble := _fetch(mirror)) is not None:
        remedy = "check network and proxy, or name another mirror: --mirror URL"
        return Finding("mirror", State.NO, f"{mirror.uri} does not answer: {trouble}", remedy)
    return Finding("mirror", State.YES, f"{mirror.uri}, signed by {key}")


def _fetch(mirror: Mirror) -> str | None:
    """Fetch the signed index of one suite as the images would be; None if it came, else apt's words."""
    suite = USERLAND.release
    with tempfile.TemporaryDirectory(prefix="netpoll-doctor-") as folder:
        apt = AptRoot(Path(folder) / "apt", mirror, (suite,))
        apt.prepare()
        command = [str(APT_HELPER), "download-file", f"{mirror.uri}/dists/{suite}/InRelease", f"{folder}/InRelease"]
        env = {**os.environ, "APT_CONFIG": str(apt.path / "apt.conf"), "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(command, env=env, capture_output=True, timeout=MIRROR_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return f"nothing came within {MIRROR_SECONDS:g} s"
        except OSError as error:
            return f"{APT_HELPER}: {error.strerror}"
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        return None if done.returncode == 0 else (said or [f"status {done.returncode}"])[-1]


def _only_for_new_images(finding: Finding) -> Finding:
    """Fetching is not needed while everything is there."""
    if finding.state is not State.NO:
        return finding
    return replace(finding, state=State.WEAK, said=f"{finding.said} (needed only for further images)")


def _of_image_error(subject: str, error: images.ImageError) -> Finding:
    what, _, hint = str(error).partition("\n  -> ")
    return Finding(subject, State.NO, what, hint)


def _disk(bench: Bench, there: bool) -> Finding:
    place = bench.options.cache
    free = shutil.disk_usage(_existing(place)).free
    need = TEMPLATE_ROOM + (0 if there else IMAGES_ROOM)
    said = f"{free // MiB} MiB free in {place}, {need // MiB} needed"
    if free >= need:
        return Finding("disk", State.YES, said)
    remedy = f"make room ({FIX} prunes the cache), or move it: NETPOLL_HARNESS_CACHE"
    return Finding("disk", State.NO, said, remedy, lambda: _prune(bench))


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _prune(bench: Bench) -> None:
    images.prune(images.Store(bench.options.cache))
    template.prune(bench.options.cache, 1, 0.0)


def _memory(free: int) -> Finding:
    need = guest_needs(USUAL.memory)
    if free < need:
        said = f"{free // MiB} MiB free, a guest may come to need {need // MiB}"
        return Finding("memory", State.NO, said, "end other programs, or give the container or machine more memory")
    return Finding(
        "memory", State.YES, f"{free // MiB} MiB free: -n {carried(USUAL.memory)} runs well, and so does -n auto"
    )


def _missing_images(bench: Bench) -> list[str]:
    """What of QEMU, the usual kernel and the userland would have to be fetched."""
    store = images.Store(bench.options.cache)
    recipes = {"the userland": USERLAND, f"kernel {USUAL.kernel}": KERNELS[USUAL.kernel]}
    if bench.options.qemu is None:
        recipes["QEMU"] = QEMU
    return [name for name, recipe in recipes.items() if store.current(recipe.key) is None]


def _images(bench: Bench, can_fetch: bool) -> Finding:
    missing = _missing_images(bench)
    if missing:
        said = f"{', '.join(missing)} not yet in {bench.options.cache}"
        if can_fetch:
            return Finding(
                "images", State.WEAK, said, f"the first run fetches them, or now: {FIX}", lambda: _usual(bench)
            )
        return Finding("images", State.NO, said, "first mend what is said above about apt, mirror and disk")
    try:
        qemu = bench.qemu()
    except images.ImageError as error:
        return _of_image_error("images", error)
    store = images.Store(bench.options.cache)
    kernels = [name for name, recipe in KERNELS.items() if store.current(recipe.key) is not None]
    said = f"QEMU {qemu.version}, kernels {', '.join(kernels)}"
    if not qemu.vfio_user:
        remedy = "leave --qemu out, or name a QEMU 10.1 or newer; without it device models of our own cannot be used"
        return Finding("images", State.WEAK, f"{said}; this QEMU has no vfio-user-pci", remedy)
    return Finding("images", State.YES, f"{said}, with vfio-user")


def _guests(bench: Bench) -> Iterator[Finding]:
    """What takes QEMU and a kernel to find out."""
    remembered = (bench.options.cache / MEMORY).exists()
    try:
        ingredients = _usual(bench)
    except (images.ImageError, TestbedError) as error:
        yield Finding("kvm", State.NO, str(error))
        return
    yield _kvm(bench, ingredients, remembered)
    if ingredients.accel == "tcg":
        yield _copies()
    yield _template(bench, ingredients)


def _usual(bench: Bench) -> template.Ingredients:
    return bench.ingredients(machine_plan(USUAL))


def _kvm(bench: Bench, ingredients: template.Ingredients, remembered: bool) -> Finding:
    """What was found only now need not be tried again."""
    said = bench.accel(bench.kernel(USUAL.kernel)).why
    if ingredients.accel == "kvm":
        return Finding("kvm", State.YES, said)
    if not os.path.exists("/dev/kvm"):
        remedy = "in a virtual machine: have nested virtualisation switched on; in a container: --device /dev/kvm"
    elif not os.access("/dev/kvm", os.R_OK | os.W_OK):
        remedy = "join the group that owns it: usermod -aG kvm USER, then log in again"
    else:
        remedy = f"what lies below this machine offers a KVM that does not work: to be mended there, then {FIX}"
    fix = partial(_forget, bench) if remembered else None
    return Finding("kvm", State.WEAK, f"{said}, slower; every case runs", remedy, fix)


def _copies() -> Finding:
    if (program := compiler()) is None:
        remedy = "install a C compiler (apt install gcc): our own library for it is built here, once"
        return Finding("copies", State.WEAK, "no C compiler: every machine is restored and none copied, slower", remedy)
    return Finding("copies", State.YES, f"machines are copied from one that is warm, by what {program} builds")


def _forget(bench: Bench) -> None:
    """The next question tries again."""
    (bench.options.cache / MEMORY).unlink(missing_ok=True)


def _template(bench: Bench, ingredients: template.Ingredients) -> Finding:
    cache = bench.options.cache
    count = len(list((cache / "templates").glob("*/template.json")))
    if template.find(cache, ingredients) is not None:
        return Finding("template", State.YES, f"for the usual machine is there, {count} in all")
    said = f"none yet for the usual machine ({USUAL.kernel}, {USUAL.machine}, {USUAL.memory} MiB), {count} others"
    remedy = f"the first run boots the guest once, or now: {FIX}"
    return Finding("template", State.WEAK, said, remedy, lambda: asyncio.run(_ensure(bench)))


async def _ensure(bench: Bench) -> None:
    await template.ensure(bench.options.cache, _usual(bench), lambda text: print(text, file=sys.stderr, flush=True))


def report(make_bench: Callable[[], contextlib.AbstractContextManager[Bench]], fix: bool) -> bool:
    """Print everything; whether cases can run. `fix`: mend what can be mended and look again, as long as that brings up subjects
    that could not be looked at before."""
    findings = _told(make_bench)
    seen: set[str] = set()
    while fix and (broken := [each for each in findings if each.fix is not None and each.subject not in seen]):
        mend(broken, lambda text: print(text, file=sys.stderr, flush=True))
        seen |= {finding.subject for finding in findings}
        print("\nafter that:")
        findings = _told(make_bench)
    runs = can_run(findings)
    print("cases can run" if runs else "cases cannot run: mend what says `no`")
    return runs


def _told(make_bench: Callable[[], contextlib.AbstractContextManager[Bench]]) -> list[Finding]:
    """Each finding as soon as it is known: a trial may take seconds. A fresh Bench, since an old one remembers."""
    findings = []
    with make_bench() as bench:
        for finding in examine(bench):
            print("\n".join(lines(finding)), flush=True)
            findings.append(finding)
    return findings
