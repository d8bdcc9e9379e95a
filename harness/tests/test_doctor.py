"""What doctor says of machines that lack something, each made for the test by namespaces and mounts of its own."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import images
from harness.doctor import Finding, State, can_run, lines, make_tun, mend
from harness.run import Bench
from harness.testbed.errors import TestbedError
from harness.testbed.host import try_network

ROOT = Path(__file__).resolve().parents[2]
MOUNTS = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
NOWHERE = "http://127.0.0.1:9/debian"  # discard's port: nobody listens
DOCTOR = f"{sys.executable} -m harness.cli doctor"


def doctor(before: str = "", *options: str, outer: list[str] = MOUNTS, **env: str | Path) -> tuple[int, dict[str, str]]:
    """Run doctor after `before` has changed the surroundings: its status, and what it says by subject (the remedy joined
    to it, the last word winning after --fix). The verdict is under ``."""
    script = f"{before + ' && ' if before else ''}exec {DOCTOR} {' '.join(options)}"
    done = subprocess.run(
        [*outer, "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), **{key: str(value) for key, value in env.items()}},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    said: dict[str, str] = {"stderr": done.stderr}
    subject = ""
    for line in done.stdout.splitlines():
        if line.startswith("cases"):
            said[""] = line
        elif line.startswith(" "):
            said[subject] += line.strip().removeprefix("->")
        elif line and line != "after that:":
            state, subject, rest = line.split(None, 2)
            said[subject] = f"{state} {rest}"
    return done.returncode, said


@pytest.fixture
def cache(bench: Bench, tmp_path: Path) -> Path:
    """A cache with the images of the real one and nothing else: nothing remembered, no templates."""
    images.ensure_guest(bench.kernel(images.DEFAULT_KERNEL), images.Builder())
    bench.qemu()
    made = tmp_path / "cache"
    made.mkdir()
    for part in ("store", "current"):
        (made / part).symlink_to(bench.options.cache / part)
    return made


@pytest.mark.guest
def test_a_machine_that_has_everything(bench: Bench) -> None:
    bench.qemu()
    bench.kernel(images.DEFAULT_KERNEL)
    status, said = doctor()
    assert status == 0, said
    assert said[""] == "cases can run"
    for subject in ("system", "namespace", "tap", "capture", "disk", "memory", "images"):
        assert said[subject].startswith("yes "), said
    assert "with vfio-user" in said["images"]
    assert said["kvm"].split()[0] in ("yes", "weak")


NO_TAP = "cases run over datagram sockets instead of taps"
LACKING = {
    "tun refused": ("mount --bind /dev/null /dev/net/tun", "tap", "weak", NO_TAP, "modprobe tun"),
    "no tun at all": ("mount -t tmpfs none /dev/net", "tap", "weak", NO_TAP, "--device /dev/net/tun"),
    "no namespace": (
        "echo 0 > /proc/sys/user/max_net_namespaces",
        "namespace",
        "weak",
        NO_TAP,
        "user.max_net_namespaces",
    ),
    "no disk": (
        "mount -t tmpfs -o size=20m none $NETPOLL_HARNESS_CACHE",
        "disk",
        "no",
        "needed",
        "NETPOLL_HARNESS_CACHE",
    ),
}


@pytest.mark.parametrize(("before", "subject", "state", "word", "remedy"), LACKING.values(), ids=LACKING.keys())
def test_a_machine_that_lacks_something(
    tmp_path: Path, before: str, subject: str, state: str, word: str, remedy: str
) -> None:
    """In a user namespace, whose limits and mounts are its own."""
    status, said = doctor(before, outer=["unshare", "-rm"], NETPOLL_HARNESS_CACHE=tmp_path)
    assert status == (3 if state == "no" else 0), said
    assert said[""].startswith("cases cannot run" if state == "no" else "cases can run")
    assert said[subject].startswith(f"{state} "), said
    assert word in said[subject]
    assert remedy in said[subject]


def test_without_images_and_without_a_mirror_nothing_runs(tmp_path: Path) -> None:
    status, said = doctor(NETPOLL_HARNESS_CACHE=tmp_path, NETPOLL_HARNESS_MIRROR=NOWHERE)
    assert status == 3
    assert said["mirror"].startswith(f"no {NOWHERE} does not answer")
    assert said["images"].startswith(f"no the userland, kernel {images.DEFAULT_KERNEL}, QEMU not yet in {tmp_path}")


def test_without_images_the_first_run_fetches_them(tmp_path: Path) -> None:
    status, said = doctor(NETPOLL_HARNESS_CACHE=tmp_path)
    assert status == 0, said
    assert said["images"].startswith("weak ")
    assert "the first run fetches them" in said["images"]
    assert list(tmp_path.iterdir()) == [], "doctor without --fix changes nothing"


def test_without_a_keyring(tmp_path: Path) -> None:
    status, said = doctor(
        NETPOLL_HARNESS_CACHE=tmp_path, NETPOLL_HARNESS_MIRROR=NOWHERE, NETPOLL_HARNESS_KEYRING=tmp_path / "none"
    )
    assert status == 3
    assert said["mirror"].startswith("no the Debian archive's keys are not here")
    assert "debian-archive-keyring" in said["mirror"]


def test_without_apt(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to("/bin/sh")
    status, said = doctor(f"PATH={tmp_path}/bin", NETPOLL_HARNESS_CACHE=tmp_path)
    assert status == 3
    assert said["apt"].startswith("no apt-get is not on this machine")


@pytest.mark.guest
def test_with_images_no_mirror_is_needed(cache: Path) -> None:
    status, said = doctor(NETPOLL_HARNESS_CACHE=cache, NETPOLL_HARNESS_MIRROR=NOWHERE)
    assert status == 0, said
    assert said["mirror"].startswith("weak ")
    assert "needed only for further images" in said["mirror"]


@pytest.mark.guest
@pytest.mark.skipif(not os.path.exists("/dev/kvm"), reason="this machine has no /dev/kvm that could be covered")
def test_a_kvm_that_is_none_is_told_from_one_that_runs(cache: Path) -> None:
    status, said = doctor("mount --bind /dev/null /dev/kvm", NETPOLL_HARNESS_CACHE=cache)
    assert status == 0, said
    assert said["kvm"].startswith("weak /dev/kvm runs no guest")
    assert "software emulation" in said["kvm"]


@pytest.mark.guest
def test_fix_makes_the_template_and_then_it_is_there(cache: Path) -> None:
    status, said = doctor("", "--fix", NETPOLL_HARNESS_CACHE=cache)
    assert status == 0, said
    assert said["template"].startswith("yes "), said
    assert "fixing template" in said["stderr"]
    assert "template ready" in said["stderr"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a device node")
def test_fix_makes_the_tun_device_that_a_container_lacks(tmp_path: Path) -> None:
    before = "mount -t tmpfs -o dev none /dev/net"
    status, said = doctor(before, "--fix", NETPOLL_HARNESS_CACHE=tmp_path, NETPOLL_HARNESS_MIRROR=NOWHERE)
    assert said["tap"].startswith("yes "), said
    assert status == 3, "images and mirror are still missing"


def test_fix_says_what_it_could_not_do() -> None:
    def refuse() -> None:
        raise TestbedError("no such luck", "try again tomorrow")

    said: list[str] = []
    done: list[str] = []
    mend(
        [
            Finding("tap", State.NO, "no tap", fix=refuse),
            Finding("apt", State.NO, "no apt"),
            Finding("disk", State.NO, "full", fix=lambda: done.append("disk")),
        ],
        said.append,
    )
    assert said[:2] == ["fixing tap: no tap", "tap could not be fixed: no such luck\n  -> try again tomorrow"]
    assert done == ["disk"]


def test_a_device_node_is_made_with_its_numbers(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            make_tun(tmp_path / "net/tun")
        return
    make_tun(tmp_path / "net/tun")
    made = (tmp_path / "net/tun").stat()
    assert stat.S_ISCHR(made.st_mode)
    assert made.st_rdev == os.makedev(10, 200)


def test_the_trial_leaves_this_process_where_it_is() -> None:
    before = os.readlink("/proc/self/ns/net")
    try_network()
    assert os.readlink("/proc/self/ns/net") == before


def test_weak_is_enough() -> None:
    yes, weak, no = (Finding("x", state, "said") for state in State)
    assert can_run([yes, weak])
    assert not can_run([yes, weak, no])


def test_a_finding_on_the_terminal() -> None:
    assert list(lines(Finding("tap", State.NO, "none", "modprobe tun"))) == [
        "no    tap        none",
        "                 -> modprobe tun",
    ]
