"""Ctrl-C and SIGKILL at random moments of every stage: a clear word, nothing left, and the next run works.

    stage      begins with                                       killed in it
    start      the process                                       importing, loading, collecting
    image      a folder under construction in the cache          building the guest's image
    template   a template under construction                     booting, saving
    restore    a case's evidence.jsonl                            restoring a clone
    plug       stage 0 in it                                      taps, hot-plug, drivers, carrier
    run        stage 1                                            sending, cutting, crashing
    judge      the end of the run in it                           judging, writing the verdict

A reference run says how long each stage takes here; the moment is drawn within that, with a seed that names itself. A few
moments with every gate, 100 with `tox -e kill`; NETPOLL_HARNESS_KILLS=FIRST-LAST names others.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import images
from harness.run import Bench
from harness.tests.traces import Ground, files, interfaces, make_ground
from images.forkable import compiler

pytestmark = pytest.mark.guest

STAGES = ("start", "image", "template", "restore", "plug", "run", "judge")
HOWS = ("Ctrl-C", "SIGKILL", "SIGKILL of a child")
LOOK = 0.002  # seconds between two looks for a stage's beginning
WITHIN = 120.0  # seconds to any stage
FEW = 7
CASE = """
about: sends, loses its link, gets it back, and panics
guest:
  nics:
    n0: {model: virtio-net}
endpoints:
  netconsole: {at: guest, stack: kernel, device: n0, peer: log}
  log: {at: host, stack: netpoll, device: n0, peer: netconsole}
steps:
  - send: {from: netconsole, count: 40}
  - wait: {received: log, count: 40}
  - crash: {how: sysrq-c, within: 20}
expect:
  - delivered: {from: netconsole, to: log, at_least_sent: 40}
"""


@dataclass(frozen=True)
class Kill:
    """What one seed decides."""

    seed: int
    stage: str
    how: str
    part: float  # of the stage's length
    workers: int

    @classmethod
    def of(cls, seed: int) -> Kill:
        dice = random.Random(seed)
        stage = STAGES[seed % len(STAGES)]
        how = HOWS[(seed + seed // len(STAGES)) % len(HOWS)]  # seven in a row meet every stage and every way
        return cls(seed, stage, how, dice.random(), dice.choice((0, 0, 2)))

    def __str__(self) -> str:
        spread = f", -n {self.workers}" if self.workers else ""
        return f"seed {self.seed}: {self.how} in {self.stage} at {self.part:.0%}{spread}"


def stage_now(ground: Ground) -> str:
    """The furthest stage that the files show."""
    if (said := _said(ground)) is not None:
        if '"kind":"end"' in said:
            return "judge"
        if '"step":1' in said:
            return "run"
        return "plug" if '"step":0' in said else "restore"
    if any(ground.cache.glob("templates/.*.new")):
        return "template"
    return "image" if any(ground.cache.glob("tmp/*.lock")) else "start"


def _said(ground: Ground) -> str | None:
    """The evidence so far, without what spaces JSON may have."""
    found = sorted(ground.results.glob("*/evidence.jsonl"))
    return found[-1].read_text(errors="replace").replace(" ", "") if found else None


def reset(ground: Ground, stage: str) -> None:
    """Take away what the stage would make, so that it has to."""
    shutil.rmtree(ground.results, ignore_errors=True)
    if stage in ("image", "template"):
        shutil.rmtree(ground.cache / "templates", ignore_errors=True)
    if stage == "image":
        for image in (ground.cache / "store").glob("guest-*"):
            shutil.rmtree(image)


@dataclass(frozen=True)
class Stand:
    """A ground, its testcase, and what an undisturbed run was like."""

    ground: Ground
    case: Path
    lengths: dict[str, float]  # seconds of each stage
    cache: frozenset[str]  # what is in the cache afterwards
    accel: str

    def start(self, kill: Kill, *more: str) -> subprocess.Popen[str]:
        reset(self.ground, kill.stage)
        spread = ("-n", str(kill.workers)) if kill.workers else ()
        return self.ground.popen(
            "run",
            self.case,
            "--results",
            self.ground.results,
            *spread,
            *more,
            stdout=(self.case.parent / "said").open("w"),
            stderr=subprocess.STDOUT,
        )

    def said(self) -> str:
        return (self.case.parent / "said").read_text()


@pytest.fixture(scope="module")
def stand(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Stand:
    bench.qemu()
    accel = bench.accel(bench.kernel(images.DEFAULT_KERNEL)).accel
    folder = tmp_path_factory.mktemp("killed")
    ground = make_ground(folder / "ground", bench.options.cache)
    case = folder / "case.yaml"
    case.write_text(CASE)
    reset(ground, "image")
    run = ground.popen(
        "run", case, "--results", ground.results, stdout=(folder / "said").open("w"), stderr=subprocess.STDOUT
    )
    began = {"start": time.monotonic()}
    while run.poll() is None:
        now = stage_now(ground)
        for stage in STAGES[: STAGES.index(now) + 1]:
            began.setdefault(stage, time.monotonic())
        time.sleep(LOOK)
    assert run.returncode == 0, (folder / "said").read_text()
    ends = [*list(began.values())[1:], time.monotonic()]
    lengths = {stage: end - start for (stage, start), end in zip(began.items(), ends, strict=True)}
    return Stand(ground, case, lengths, frozenset(_lasting(ground)), accel)


def _lasting(ground: Ground) -> Iterator[str]:
    """Everything in the cache but lock files, which are there for good."""
    return (path for path in _names(ground.cache) if not path.endswith(".lock"))


def _names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder))


def await_stage(run: subprocess.Popen[str], ground: Ground, stage: str) -> bool:
    """Return as soon as `stage` has begun: whether the run was still going."""
    deadline = time.monotonic() + WITHIN
    while STAGES.index(stage_now(ground)) < STAGES.index(stage):
        if run.poll() is not None:
            return False
        assert time.monotonic() < deadline, f"stage {stage} did not begin within {WITHIN:g} s"
        time.sleep(LOOK)
    return True


def strike(run: subprocess.Popen[str], kill: Kill, ground: Ground) -> str:
    """Do it; the command line of who was hit."""
    if kill.how == "Ctrl-C":
        os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to the group in the foreground
        return "the group"
    children = {pid: line for pid, line in ground.processes().items() if pid != run.pid}
    victim = run.pid
    if kill.how == "SIGKILL of a child" and children:
        victim = random.Random(kill.seed).choice(sorted(children))
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return "nobody: it had just ended"
    return children.get(victim, "the run itself")


def held_locks(cache: Path) -> list[str]:
    """Lock files that somebody still holds."""
    held = []
    for path in [*cache.glob("*/*.lock"), *cache.glob("*/.*.lock")]:
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path.name)
    return held


def half_made(cache: Path) -> list[str]:
    """What would be taken for whole and is not."""
    whole = {"ram", "state", "kallsyms", "template.json"}
    templates = (path.parent for path in cache.glob("templates/*/template.json"))
    bad = [str(folder) for folder in templates if not whole <= {path.name for path in folder.iterdir()}]
    images = cache.glob("store/*/manifest.json")
    return bad + [str(path) for path in images if not json.loads(path.read_text())["digest"]]


def check_words(kill: Kill, victim: str, status: int, said: str) -> None:
    """What the run says of it; a run that was killed itself says nothing, and what xdist's orphaned workers say is not ours."""
    if victim == "the run itself" and kill.workers:
        assert status in (0, -signal.SIGKILL), (kill, said)
        return
    assert "Traceback" not in said, (kill, victim, said)
    assert "INTERNALERROR" not in said, (kill, victim, said)
    if kill.how == "Ctrl-C":
        assert status in (0, 130), (kill, said)
        assert status == 0 or "interrupted" in said, (kill, said)
    elif victim == "the run itself":
        assert status in (0, -signal.SIGKILL), (kill, said)
    else:
        assert status in (0, 3), (kill, victim, said)


def check_one(stand: Stand, kill: Kill) -> str:
    """The stage in which it really hit."""
    ground, before = stand.ground, interfaces()
    run = stand.start(kill)
    going = await_stage(run, ground, kill.stage)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(kill.part * stand.lengths[kill.stage])
    hit = stage_now(ground) if going and run.poll() is None else "end"
    victim = strike(run, kill, ground) if run.poll() is None else "nobody"
    run.wait(WITHIN)
    assert ground.wait_until_gone() == {}, kill
    check_words(kill, victim, run.returncode, stand.said())
    assert interfaces() == before, kill
    assert held_locks(ground.cache) == [], kill
    assert half_made(ground.cache) == [], kill
    assert files(ground.temporary) == {}, kill
    shutil.rmtree(ground.results, ignore_errors=True)
    again = ground.run("run", stand.case, "--results", ground.results)
    assert again.returncode == 0, (kill, victim, again.stdout + again.stderr)
    assert frozenset(_lasting(ground)) == stand.cache, kill
    print(f"{kill}: hit {victim[:60]!r} in {hit}, status {run.returncode}", flush=True)
    return hit


def test_who_starts_the_cases_is_killed(stand: Stand) -> None:
    """The oldest child that starts cases: its case and its QEMU go with it, the run says so and ends with 3."""
    reset(stand.ground, "run")
    run = stand.start(Kill(0, "run", "SIGKILL of a child", 0.0, 0))
    assert await_stage(run, stand.ground, "run")
    starters = [pid for pid, line in stand.ground.processes().items() if "harness.zygote" in line]
    os.kill(min(starters), signal.SIGKILL)
    assert run.wait(WITHIN) == 3
    assert "the process that starts cases ended by itself" in stand.said()
    assert stand.ground.wait_until_gone() == {}


def copied(ground: Ground) -> list[Path]:
    """Cases whose machine is a copy."""
    said = {path: path.read_text(errors="replace")[:2000] for path in ground.results.glob("*/evidence.jsonl")}
    return [path for path, text in said.items() if '"machine":"copied"' in text.replace(" ", "")]


@pytest.mark.skipif(compiler() is None, reason="no C compiler on this host: nothing is copied")
@pytest.mark.parametrize("seed", [pytest.param(seed, marks=() if seed < 6 else pytest.mark.long) for seed in range(30)])
def test_killed_while_machines_are_copied(stand: Stand, seed: int) -> None:
    """Originals, copies, those that warm up and those that keep them: whoever is hit, nothing is left, and the run says what it lost."""
    if stand.accel != "tcg":
        pytest.skip("under KVM nothing is copied")
    dice, ground = random.Random(f"copies/{seed}"), stand.ground
    kill = Kill(seed, "run", HOWS[seed % len(HOWS)], dice.random(), dice.choice((0, 2)))
    reset(ground, "run")
    run = stand.start(kill, "--repeat", "40")
    deadline = time.monotonic() + WITHIN
    while not copied(ground):
        assert run.poll() is None, stand.said()
        assert time.monotonic() < deadline, "no machine was copied"
        time.sleep(LOOK)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(kill.part * 1.5)
    victim = strike(run, kill, ground)
    if kill.how == "SIGKILL of a child":  # the others go on; that was seen
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(kill.part * 3)
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGINT)
    run.wait(WITHIN)
    assert ground.wait_until_gone() == {}, (kill, victim)
    said = stand.said()
    assert "INTERNALERROR" not in said or kill.workers, (kill, victim, said)
    assert run.returncode in (0, 1, 3, 130, -signal.SIGKILL), (kill, victim, said)  # 1: verdicts of a repetition differ
    assert held_locks(ground.cache) == [], kill
    assert half_made(ground.cache) == [], kill
    assert files(ground.temporary) == {}, kill
    print(f"{kill}: hit {victim[:90]!r}, status {run.returncode}", flush=True)


def chosen() -> list[object]:
    """Seeds as parameters: the first few always, the rest marked long."""
    first, _, last = os.environ.get("NETPOLL_HARNESS_KILLS", "0-99").partition("-")
    seeds = range(int(first), int(last or first) + 1)
    return [pytest.param(seed, marks=() if seed < FEW else pytest.mark.long) for seed in seeds]


@pytest.mark.parametrize("seed", chosen())
def test_killed_at_a_random_moment(stand: Stand, seed: int) -> None:
    check_one(stand, Kill.of(seed))
