"""What is seen while cases run: read from their folders, shown as a line each, gone when they are over."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest

import images
from harness.plan.compile import compile_plan
from harness.plan.model import Await
from harness.report import store
from harness.report.running import Watch
from harness.report.waiting import WORDS, wait_words
from harness.scenario.load import load
from harness.testbed.ticking import GONE, ticking

ROOT = Path(__file__).resolve().parents[2]
LINK_CUT = ROOT / "testcases/drop/netconsole-link-cut.yaml"


def begun(root: Path) -> Path:
    """A case whose process has just been started."""
    plan = compile_plan(load(LINK_CUT)[0], f"{LINK_CUT}:1")
    return store.new_case(root, plan, {})


def told(folder: Path, src: str, kind: str, cut: int = 0, **keys: Any) -> None:
    """One event more; `cut`: without its last bytes, as a write that is seen half."""
    line = json.dumps({"t": 1.0, "src": src, "kind": kind, **keys}) + "\n"
    with (folder / store.EVIDENCE).open("a") as file:
        file.write(line[: len(line) - cut])


def test_a_case_is_followed_from_its_folder_to_its_verdict(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    assert watch.look() == []
    folder = begun(tmp_path)
    (running,) = watch.look()
    assert (running.case, running.step, running.waits) == (
        "drop/netconsole-link-cut[nic=e1000]",
        "restoring the guest",
        "",
    )
    told(folder, "run", "stage", step=0, title="set-up")
    (running,) = watch.look()
    assert (running.step, running.waits) == ("0/10 set-up", "the carrier of n0 to be up, up to 30 s")
    told(folder, "await", "reached", what="carrier", of="n0", state="up", count=1, seconds=0.1)
    (running,) = watch.look()
    assert running.waits == ""
    told(folder, "run", "stage", cut=5, step=5, title="x")
    (running,) = watch.look()
    assert running.step == "0/10 set-up", "half a line is no line"
    (folder / store.VERDICT).write_text("{}")
    assert watch.look() == []


def test_cases_of_an_earlier_run_in_the_same_folder_are_not_running(tmp_path: Path) -> None:
    begun(tmp_path)
    watch = Watch(tmp_path)
    assert watch.look() == []
    second = begun(tmp_path)
    assert [each.folder for each in watch.look()] == [second]


def test_talk_is_qmp_and_the_agents_words_not_every_frame(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    folder = begun(tmp_path)
    told(folder, "qmp", "reply", execute="netdev_add", arguments={"type": "tap"}, seconds=0.1)
    told(folder, "wire", "frame", nic="n0")
    told(folder, "guest", "rx", endpoint="g", seq=1)
    told(folder, "guest", "nic", nic="n0", driver="e1000")
    (folder / store.VERDICT).write_text("{}")
    assert watch.talk() == [
        "    1.000 qmp     reply netdev_add type=tap 0.1",
        "    1.000 guest   nic n0 e1000",
    ]
    assert watch.talk() == []


def test_every_kind_of_wait_has_words_that_use_what_it_says() -> None:
    kinds = get_args(Await.model_fields["what"].annotation)
    assert set(WORDS) == set(kinds), "say in harness/report/waiting.py what is waited for"
    assert wait_words("received", "log", None, 40) == "log to have received 40"
    assert wait_words("telepathy", "log") == "telepathy log"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_what_takes_a_while_has_a_line_on_a_terminal_alone_and_leaves_none(out: io.StringIO) -> None:
    async def work() -> None:
        async with ticking(lambda: "x" * 500, out):
            await asyncio.sleep(0.3)

    asyncio.run(work())
    said = out.getvalue()
    assert bool(said) == out.isatty()
    if said:
        shown = said.split(GONE)
        assert shown[-1] == "", "it is gone"
        assert re.fullmatch(r"   0\.\d s  x+", shown[1])
        assert max(map(len, shown)) < shutil.get_terminal_size().columns


CASE = "crash/panic[nic=virtio-net,crash=sysrq-c]"


def argv(results: Path, *more: str) -> list[str]:
    named = f"{ROOT}/testcases/crash/panic.yaml::{CASE}"
    return [
        sys.executable,
        "-m",
        "harness.cli",
        "run",
        named,
        "--results",
        str(results),
        "-p",
        "no:cacheprovider",
        *more,
    ]


def on_a_terminal(words: list[str], **environment: str) -> str:
    """Everything that a process writes to a pseudo terminal."""
    ours, theirs = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")}
    env |= {"TERM": "xterm", "COLUMNS": "150", "PYTHONPATH": str(ROOT), **environment}
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=ROOT)
    os.close(theirs)
    said, deadline = b"", time.monotonic() + 280
    try:
        while time.monotonic() < deadline and (data := os.read(ours, 1 << 16)):
            said += data
    except OSError:  # EIO: the last one who wrote is gone
        pass
    os.close(ours)
    assert process.wait(10) == 0, said.decode()
    return said.decode()


@pytest.mark.guest
def test_on_a_terminal_a_running_case_has_a_line_that_goes(tmp_path: Path) -> None:
    said = on_a_terminal(argv(tmp_path / "r"), NO_COLOR="1")
    assert re.search(re.escape(CASE) + r" +(restoring the guest|\d/\d)", said)
    assert "0 of 1 cases over" in said
    assert "\x1b[2K" in said, "the line is taken away"
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", said), "NO_COLOR"
    assert said.rindex("1 case: 1 PASS") > said.rindex("cases over")


@pytest.mark.guest
def test_on_a_terminal_one_sees_the_template_boot_and_what_is_waited_for(tmp_path: Path) -> None:
    """In a cache of its own that has the images, but no template."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for part in ("store", "current"):
        (cache / part).symlink_to(images.cache_root() / part)
    case = "drop/netconsole-link-cut[nic=virtio-net]"
    words = [word.replace("crash/panic.yaml", "drop/netconsole-link-cut.yaml") for word in argv(tmp_path / "r")]
    words = [word.replace(CASE, case) for word in words]
    said = on_a_terminal(words, NETPOLL_HARNESS_CACHE=str(cache), NO_COLOR="1")
    begun, ready = said.index("booting debian-6.1 once"), said.index("template ready in")
    assert re.search(r"\r\x1b\[K +\d+\.\d s +\[ +\d+\.\d+\] ", said[begun:ready]), "the console's last line"
    assert re.search(r"waits for .{5,60}, up to \d+ s", said[ready:])


@pytest.mark.guest
def test_without_a_terminal_a_line_a_case(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        argv(tmp_path / "r"), capture_output=True, text=True, env=env, cwd=ROOT, timeout=280, check=True
    )
    lines = [line for line in done.stdout.splitlines() if CASE in line]
    assert [line.split()[0] for line in lines] == ["PASS"], done.stdout
    assert float(lines[0].split()[1]) > 0.2, "the time that the case took"
    assert "\x1b" not in done.stdout
    assert "waits for" not in done.stdout


@pytest.mark.guest
def test_verbosely_the_talk_comes_between(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        argv(tmp_path / "r", "-v"), capture_output=True, text=True, env=env, cwd=ROOT, timeout=280, check=True
    )
    for word in ("reply netdev_add type=tap", "guest   nic n0", "inject  crash sysrq-c", "event GUEST_PANICKED"):
        assert done.stdout.index(word) < done.stdout.index("PASSED")
