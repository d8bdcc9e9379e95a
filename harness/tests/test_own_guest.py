"""Guests of one's own: a disk image of Debian packages that boots by itself, into which the stack moves over ssh."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import images
from harness.plan.compile import compile_plan
from harness.plan.model import DiskPlan
from harness.run import Bench, Options, load, login_of
from harness.scenario.errors import ScenarioErrors
from harness.scenario.load import load as scenarios
from harness.testbed.errors import GuestRefused, TestbedError
from harness.testbed.own_guest import OwnGuest, _archive
from harness.tests.own_disk import OwnDisk, build

CASE = """
about: a guest that this project did not build sends, says its last words, and all of them are on the wire
matrix:
  channel: [agent, ssh]
guest:
  disk: {disk}
  memory: 384
  channel: "${{channel}}"
  ssh: {{key: client_key, host_key: {host_key}}}
  nics: {{n0: {{model: virtio-net}}}}
endpoints:
  netconsole: {{at: guest, stack: kernel, device: n0, peer: log}}
  log: {{at: host, stack: netpoll, device: n0, peer: netconsole}}
  sender: {{at: guest, stack: netpoll, device: n0, peer: sink}}
  sink: {{at: host, stack: netpoll, device: n0, peer: sender}}
steps:
  - run: {{argv: [grep, -w, ext4, /proc/mounts]}}
  - send: {{from: sender, count: 100}}
  - wait: {{received: sink, count: 100}}
  - send: {{from: netconsole, count: 20, size: [16, 200], interval: 0.01}}
  - wait: {{received: log, count: 20}}
  - crash: {{how: sysrq-c}}
expect:
  - delivered: {{from: sender, to: sink}}
  - parity: {{to: log}}
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDisk]:
    folder = tmp_path_factory.mktemp("own")
    yield build(folder)
    shutil.rmtree(folder)  # 400 MB that nobody wants to find in /tmp


@pytest.fixture
def cache(bench: Bench, tmp_path: Path) -> Iterator[Path]:
    """A cache whose templates go with the test; the images are the real one's."""
    bench.qemu()
    made = tmp_path / "cache"
    made.mkdir()
    for part in ("store", "current"):
        (made / part).symlink_to(bench.options.cache / part)
    yield made
    shutil.rmtree(made)


def options(bench: Bench, cache: Path, results: Path) -> Options:
    """As the command line would have them, with KVM if it runs here."""
    return Options(results=results, accel=bench.accel(bench.kernel(images.DEFAULT_KERNEL)).accel, cache=cache)


def write_case(disk: OwnDisk, name: str = "disk.raw", host_key: str = "host_key.pub") -> Path:
    case = disk.path.parent / "case.yaml"
    case.write_text(CASE.format(disk=name, host_key=host_key))
    return case


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.guest
def test_a_qcow2_image_of_ones_own_from_boot_to_verdict(
    bench: Bench,
    disk: OwnDisk,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One boot, one template, two clones; the image is read and never written."""
    monkeypatch.setattr(
        "harness.testbed.own_guest._archive", functools.cache(_archive)
    )  # whoever edits guest/ meanwhile
    image = disk.path.with_name("disk.qcow2")
    command = [*bench.qemu().img_argv, "convert", "-f", "raw", "-O", "qcow2", str(disk.path), str(image)]
    subprocess.run(command, check=True)
    before = digest(image)
    plans = load([write_case(disk, "disk.qcow2")], options(bench, cache, tmp_path))
    own = Bench(options(bench, cache, tmp_path / "results"), print)
    try:
        verdicts = [own.run(plan)[0] for plan in plans]
    finally:
        own.close()
    assert [verdict.word for verdict in verdicts] == ["PASS", "PASS"], verdicts
    assert capsys.readouterr().out.count("template ready") == 1
    assert digest(image) == before


REFUSED = {
    "another host key": ("", "ssh-ed25519 " + "A" * 68, "is not the one we expect"),
    "no serial console": ("console=tty0", "host_key.pub", "does not speak on the serial console"),
}


@pytest.mark.guest
@pytest.mark.parametrize(("cmdline", "host_key", "word"), REFUSED.values(), ids=REFUSED.keys())
def test_a_guest_that_cannot_be_used_says_why_and_leaves_no_template(
    bench: Bench, disk: OwnDisk, cache: Path, tmp_path: Path, cmdline: str, host_key: str, word: str
) -> None:
    used = disk
    if cmdline:
        (tmp_path / "disk").mkdir()
        used = build(tmp_path / "disk", cmdline)
    plan = load([write_case(used, host_key=host_key)], options(bench, cache, tmp_path))[0]
    own = Bench(options(bench, cache, tmp_path), print)
    with pytest.raises(TestbedError, match=word) as refused:
        own.prepare(plan)
    assert refused.value.hint
    assert not [path for path in (cache / "templates").iterdir() if path.is_dir()]
    if cmdline:
        assert isinstance(refused.value, GuestRefused)
        used.path.unlink()


def test_paths_are_the_testcases_own(tmp_path: Path) -> None:
    case = tmp_path / "sub" / "case.yaml"
    case.parent.mkdir()
    case.write_text(CASE.format(disk="../images/disk.qcow2", host_key="ssh-ed25519 AAAA"))
    machine = compile_plan(scenarios(case)[0], f"{case}:2").machine
    assert machine.disk == DiskPlan(
        path=f"{case.parent}/../images/disk.qcow2",
        user="root",
        key=f"{case.parent}/client_key",
        host_key="ssh-ed25519 AAAA",
    )
    assert machine.kernel == "../images/disk.qcow2"


CONTRADICTIONS = {
    "a kernel besides": ("memory: 384", "kernel: debian-6.1", "a disk boots its own kernel"),
    "no login": ("  ssh: {key: client_key, host_key: x}\n", "", "nobody knows how to log in"),
    "a login to our guest": ("  disk: d\n", "", "has keys of its own"),
    "no key": ("key: client_key, ", "", "key"),
}


@pytest.mark.parametrize(("old", "new", "word"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_contradictions_are_found_when_loading(tmp_path: Path, old: str, new: str, word: str) -> None:
    text = CASE.format(disk="d", host_key="x")
    assert old in text
    (tmp_path / "case.yaml").write_text(text.replace(old, new))
    with pytest.raises(ScenarioErrors, match=word):
        scenarios(tmp_path / "case.yaml")


def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "case.yaml").write_text(CASE.format(disk="no.qcow2", host_key="ssh-ed25519 AAAA"))
    command = [sys.executable, "-m", "harness.cli", "run", str(tmp_path / "case.yaml"), "--accel", "tcg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"{tmp_path}/no.qcow2: No such file" in done.stderr
    assert "relative to the testcase's folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x")
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA us")
    good = DiskPlan(path="d", user="root", key=f"{tmp_path}/key", host_key=f"{tmp_path}/key.pub")
    assert login_of(good).host_key == "ssh-ed25519 AAAA us"
    for part in ("key", "host_key"):
        with pytest.raises(TestbedError, match="/no/such: No such file"):
            login_of(good.model_copy(update={part: "/no/such"}))


def test_another_image_or_another_stack_is_another_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "disk"
    image.write_bytes(b"one")
    own = OwnGuest(image, ())
    seen = {own.identity()}
    image.write_bytes(b"three")
    seen.add(own.identity())
    monkeypatch.setattr("harness.testbed.own_guest._archive", lambda: _archive() + b"edited")
    seen.add(own.identity())
    assert len(seen) == 3
    with pytest.raises(TestbedError, match="No such file"):
        replace(own, disk=tmp_path / "none").identity()


def test_without_qemu_img_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x")
    with pytest.raises(TestbedError, match="no qemu-img"):
        OwnGuest(tmp_path / "disk", ()).overlay(tmp_path)
