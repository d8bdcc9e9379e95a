"""Copies of a machine on a real QEMU: each answers, each has its own, and whoever ends takes nobody along."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.case import Job
from harness.observe.events import Clock
from harness.originals import _warm, begin, in_child
from harness.run import Bench, load
from harness.testbed.machine import Machine, Observers
from harness.testbed.original import HELM, Copy, NoCopy, Original, end_copy, start
from harness.testbed.process import Sibling, clock_of
from images.forkable import compiler

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(compiler() is None, reason="no C compiler on this host"),
]
QUIET = Observers(lambda *_: None, lambda *_: None, lambda *_: None)
MiB = 1 << 20


@pytest.fixture(scope="module")
def job(bench: Bench, testcases: Path) -> Job:
    return bench.prepare(load([testcases / "crash" / "panic.yaml"], bench.options)[0])


def begun(bench: Bench, job: Job) -> Original:
    if job.ingredients.accel != "tcg":
        pytest.skip("under KVM nothing is copied")
    library = bench.forkable()
    assert library is not None
    return begin(job, library)


@contextlib.contextmanager
def warm(bench: Bench, job: Job) -> Iterator[Original]:
    made = begun(bench, job)
    try:
        assert ended(partial(_warm, made, job)) == 0
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def alone(bench: Bench, job: Job) -> Iterator[Original]:
    with warm(bench, job) as made:
        yield made


@pytest.fixture(scope="module")
def seen(bench: Bench, testcases: Path) -> Iterator[Original]:
    """One whose copies' memory other processes see."""
    with warm(bench, bench.prepare(load([testcases / "tg3" / "messages.yaml"], bench.options)[0])) as made:
        yield made


@pytest.fixture(params=["alone", "seen"])
def original(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def ended(work: Callable[[], int]) -> int:
    """The status of a child that does it."""
    return os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1])


@contextlib.contextmanager
def copied(original: Original) -> Iterator[Copy]:
    copy = original.copy()
    try:
        yield copy
    finally:
        copy.close()
        end_copy(copy.pid)


async def asked(copy: Copy, folder: Path, *requests: tuple[str, dict[str, Any]]) -> list[Any]:
    """Let the copy run, and ask its agent."""
    on = Machine.on(Sibling(copy.pid), copy.argv, copy.ends, QUIET, Clock.start(), folder / "console")
    async with on as machine:
        await machine.qmp.execute("cont")
        return [await machine.alive(machine.agent.ask(op, args), 30, op) for op, args in requests]


def sh(command: str) -> tuple[str, dict[str, Any]]:
    return "run", {"argv": ["sh", "-c", command]}


def test_every_copy_answers(original: Original, tmp_path: Path) -> None:
    for _ in range(25):
        with copied(original) as copy:
            (hello,) = asyncio.run(asked(copy, tmp_path, ("hello", {})))
            assert hello["release"]


def test_what_one_does_no_other_sees(original: Original, tmp_path: Path) -> None:
    look = sh("cat /tmp/mark 2>/dev/null; ls /sys/class/net; ls /sys/kernel/config/netconsole; cat /proc/uptime")
    outs = []
    for _ in range(2):
        with copied(original) as copy:
            before, _ = asyncio.run(asked(copy, tmp_path, look, sh("echo mine > /tmp/mark; ip link set lo up")))
            outs.append(before["out"].split())
    for out in outs:
        assert out[0] != "mine"
        assert "eth0" not in out, "the NICs of the warm-up are gone"
        assert not {"warm-kernel", "warm-second"} & set(out), "and so are its targets"


def test_others_see_the_memory_of_their_copy_alone(seen: Original, tmp_path: Path) -> None:
    mark = os.urandom(16).hex().encode()
    with copied(seen) as first, copied(seen) as second:
        asyncio.run(asked(first, tmp_path, sh(f"echo {mark.decode()} > /tmp/mark")))
        memories = [each.memory for each in (first, second, seen) if each.memory is not None]
        assert [mark in content(fd) for fd in memories] == [True, False, False]


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def test_a_copy_is_small_and_quick(alone: Original, tmp_path: Path) -> None:
    original = alone
    began = time.monotonic()
    with copied(original) as copy:
        asyncio.run(asked(copy, tmp_path, ("hello", {})))
        assert time.monotonic() - began < 5, "seconds, where it should take hundredths of one"
    with copied(original) as copy:
        rollup = Path(f"/proc/{copy.pid}/smaps_rollup").read_text()
    dirty = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty"))
    assert dirty << 10 < 20 * MiB, (
        "what it has for itself; a restored clone has 20 MiB and more before it has done anything"
    )


def test_a_copy_that_is_killed_leaves_the_original(original: Original, tmp_path: Path) -> None:
    with copied(original) as copy:
        os.kill(copy.pid, signal.SIGKILL)
    with copied(original) as copy:
        assert asyncio.run(asked(copy, tmp_path, ("hello", {})))


def test_how_a_copy_ended_is_known(original: Original) -> None:
    copy = original.copy()
    process = Sibling(copy.pid)
    assert process.returncode is None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 0 <= process.processor < 5
    copy.ends.close()
    end_copy(copy.pid)


def test_two_at_once(original: Original, tmp_path: Path) -> None:
    with copied(original) as one, copied(original) as other:
        for copy in (one, other):
            assert asyncio.run(asked(copy, tmp_path, sh("echo here")))[0]["out"] == "here\n"


def test_copies_end_with_whoever_made_them(bench: Bench, job: Job) -> None:
    """The process that holds the original is killed: neither original nor copy survives."""
    near, far = os.pipe()

    def hold() -> int:
        made = begun(bench, job)
        copy = made.copy()
        os.write(far, f"{made.process.pid} {copy.pid}\n".encode())
        signal.pause()
        return 0

    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            hold()
        os._exit(1)
    pids = [int(word) for word in os.read(near, 100).split()]
    ends = [os.pidfd_open(pid) for pid in pids]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for end in ends:
        assert _readable(end), "the end of a QEMU"
        os.close(end)
    for end in (near, far):
        os.close(end)


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 10)[0])


def test_an_original_that_has_ended_says_so(bench: Bench, job: Job) -> None:
    made = begun(bench, job)
    made.process.kill()
    made.process.wait()
    with pytest.raises(NoCopy, match=r"has ended|no answer"):
        made.copy()
    made.close()


def test_a_machine_that_runs_is_not_copied(bench: Bench, job: Job) -> None:
    """Its CPU is somewhere in the guest's code."""
    made = begun(bench, job)
    made.control.settimeout(20)
    try:
        assert ended(partial(_warm, made, job)) == 0
        said = made.ends.near[HELM].makefile("rw")
        said.write('{"execute": "cont"}\n')
        said.flush()
        while "return" not in said.readline():  # events come before
            pass
        spin = {"argv": ["sh", "-c", "while :; do :; done"], "within": 600}
        made.ends.near["agent"].sendall(json.dumps({"id": 1, "op": "run", "args": spin}).encode() + b"\n")
        _until_busy(made.process.pid)
        with pytest.raises(NoCopy, match=r"does not stand in a wait|lock is held"):
            made.copy()
        assert made.process.returncode is None
    finally:
        made.close()


def _until_busy(pid: int) -> None:
    """Until its processor time grows by half a second within a second."""
    for _ in range(30):
        before = time.clock_gettime(clock_of(pid))
        time.sleep(1)  # the measure itself
        if time.clock_gettime(clock_of(pid)) - before > 0.3:
            return
    raise AssertionError("the guest does not become busy")


def test_an_unknown_qemu_is_left_alone() -> None:
    with pytest.raises(NoCopy, match="one's own"):
        start(lambda _channels: ["/usr/bin/qemu-system-x86_64"], Path("forkable.so"))
