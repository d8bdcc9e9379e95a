"""RAM templates and clones on a real QEMU: both forms of memory, guests that never answer, hosts without taps."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.observe.events import Clock
from harness.run import Bench, load
from harness.testbed import template
from harness.testbed.errors import GuestSilent, TestbedError
from harness.testbed.machine import Machine, Observers
from harness.testbed.template import Ingredients, Template, clone_argv, clone_memory, ensure, prune, restore

pytestmark = pytest.mark.guest
QUIET = Observers(lambda *_: None, lambda *_: None, lambda *_: None)


@pytest.fixture
def ingredients(bench: Bench, testcases: Path) -> Ingredients:
    plan = load([testcases / "crash" / "panic.yaml"], bench.options)[0]
    bench.prepare(plan)
    return bench.ingredients(plan.machine)


def with_cmdline(ingredients: Ingredients, extra: str) -> Ingredients:
    machine = ingredients.machine.model_copy(update={"cmdline": f"{ingredients.machine.cmdline} {extra}"})
    return replace(ingredients, machine=machine)


async def hello(ingredients: Ingredients, made: Template, shared: bool, folder: Path) -> str:
    """Restore a clone, ask who it is."""
    with clone_memory(made, shared) as (memory, inherit):
        start = Machine.start(
            lambda channels: clone_argv(ingredients, memory, channels),
            QUIET,
            Clock.start(),
            folder / "console",
            inherit,
        )
        async with start as guest:
            await restore(guest, made)
            answer = await guest.alive(guest.agent.ask("hello"), 30, "hello")
            return str(answer["release"])


@pytest.mark.parametrize("shared", [False, True], ids=["copy-on-write", "shared memory"])
def test_a_clone_answers(bench: Bench, ingredients: Ingredients, tmp_path: Path, shared: bool) -> None:
    made = template.find(bench.options.cache, ingredients)
    assert made is not None
    before = made.ram.stat()
    assert asyncio.run(hello(ingredients, made, shared, tmp_path)) == made.hello["release"]
    after = made.ram.stat()
    assert (after.st_mtime_ns, after.st_blocks) == (before.st_mtime_ns, before.st_blocks), "a clone wrote the template"


def test_four_clones_at_once_share_one_template(bench: Bench, ingredients: Ingredients, tmp_path: Path) -> None:
    made = template.find(bench.options.cache, ingredients)
    assert made is not None

    async def all_of_them() -> list[str]:
        folders = [tmp_path / str(number) for number in range(4)]
        for folder in folders:
            folder.mkdir()
        return await asyncio.gather(*(hello(ingredients, made, False, folder) for folder in folders))

    assert asyncio.run(all_of_them()) == [made.hello["release"]] * 4


def test_a_guest_that_panics_while_booting_is_not_waited_for(ingredients: Ingredients, tmp_path: Path) -> None:
    doomed = with_cmdline(ingredients, "rdinit=/no/such/init init=/no/such/init")
    with pytest.raises(GuestSilent, match="panicked while it booted"):
        asyncio.run(ensure(tmp_path, doomed, print))
    assert not list((tmp_path / "templates").glob("*/template.json"))
    assert not list((tmp_path / "templates").glob(".*.new"))


def test_an_agent_that_never_answers_shows_the_console(
    ingredients: Ingredients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "BOOT_DEADLINE", {"kvm": 20.0, "tcg": 20.0})
    mute = with_cmdline(ingredients, "rdinit=/bin/cat")
    with pytest.raises(GuestSilent) as silent:
        asyncio.run(ensure(tmp_path, mute, print))
    assert "did not answer `hello` within 20 s" in str(silent.value)
    assert "Run /bin/cat as init process" in str(silent.value)
    assert not list((tmp_path / "templates").glob("*/template.json"))


def test_no_room_for_a_template_is_said_before_anything_is_started(
    ingredients: Ingredients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1 << 20))
    with pytest.raises(TestbedError, match="MiB are free"):
        asyncio.run(ensure(tmp_path, ingredients, print))


OWN_MOUNTS = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def test_a_disk_that_fills_while_a_template_is_made(ingredients: Ingredients, tmp_path: Path) -> None:
    """On a real small file system: the room is there when asked, and gone when QEMU writes."""
    script = f"""
import asyncio, pickle, sys
from pathlib import Path
from types import SimpleNamespace
from harness.testbed import template
from harness.testbed.errors import TestbedError
template._require_room = lambda *_: None
ingredients = pickle.loads(bytes.fromhex({_pickled(ingredients)!r}))
try:
    asyncio.run(template.ensure(Path({str(tmp_path)!r}), ingredients, print))
except TestbedError as error:
    print("SAID", error)
print("LEFT", [path.name for path in Path({str(tmp_path)!r}, "templates").glob("*") if not path.name.endswith(".lock")])
"""
    mount = f'mount -t tmpfs -o size=48m none {tmp_path} && exec {sys.executable} -c "$SCRIPT"'
    done = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", mount],
        env={**os.environ, "SCRIPT": script, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "SAID" in done.stdout, done.stdout + done.stderr
    assert "LEFT []" in done.stdout


def _pickled(ingredients: Ingredients) -> str:
    import pickle

    return pickle.dumps(ingredients).hex()


def test_prune_keeps_what_was_used_last(tmp_path: Path) -> None:
    home = tmp_path / "templates"
    for number in range(5):
        (home / f"t{number}").mkdir(parents=True)
        mark = home / f"t{number}" / "template.json"
        mark.write_text("{}")
        os.utime(mark, (1_000_000 + number, 1_000_000 + number))
    (home / ".half.new").mkdir()
    for name in (".t4.lock", ".t0.lock", ".long-gone.lock"):
        (home / name).touch()
    gone = prune(tmp_path, keep=2, unused=60)
    assert sorted(folder.name for folder in gone) == ["t0", "t1", "t2"]
    assert sorted(folder.name for folder in home.glob("t*")) == ["t3", "t4"]
    assert not (home / ".half.new").exists()
    assert [path.name for path in home.glob(".*.lock")] == [".t4.lock"]
