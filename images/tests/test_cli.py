"""`images build|list|prune` as a user types it, on a cache of its own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import images
from images import catalogue, cli
from images.catalogue import KEPT_GUESTS, KEPT_OWN, list_, prune, trim
from images.recipes import KERNELS
from images.store import Store

KERNEL_KEY = KERNELS["debian-6.1"].key


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    return cli.run(parser.parse_args(["images", *words]))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NETPOLL_HARNESS_CACHE", str(tmp_path))
    return Store(tmp_path)


def add(store: Store, kind: str, digest: str, **extra: Any) -> str:
    """Puts an object into the store and lets go of it; returns its name."""

    def fill(scratch: Path) -> Mapping[str, Any]:
        (scratch / "data").write_bytes(bytes(1_000_000))
        return {"kind": kind, "digest": digest, "built": "2026", "size": 1_000_000, "packages": {"p": "1"}, **extra}

    name = f"{kind}-{digest}"
    store.build(lambda _: name, fill)
    store.release()
    return name


def add_kernel_with_guests(store: Store, version: str, guests: int) -> list[str]:
    kernel = add(store, "kernel-debian-6.1", version)
    base = add(store, "base", f"b{version}", kernel={"digest": version})
    names = [add(store, "guest", f"g{version}{number}", base=base) for number in range(guests)]
    return [kernel, base, *names]


def test_an_unknown_kernel_is_a_usage_error_with_the_known_ones(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("build", "--kernel", "debian-61") == 2
    said = capsys.readouterr().err
    assert "did you mean debian-6.1?" in said
    assert all(name in said for name in KERNELS)
    assert store.objects() == []


def test_a_bad_mirror_is_a_testbed_error(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("build", "--mirror", "nowhere") == 3
    assert "not the address of a mirror" in capsys.readouterr().err
    assert store.objects() == []


def test_tools_are_built_alone(tools: images.Tools, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("build", "--tools", "--mirror", "file:/nowhere") == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert all(f"{name} {version}" in said[0] for name, version in tools.versions.items())
    assert said[0].endswith(f": {tools.tree}")


def test_an_empty_cache_is_listed_and_pruned(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert (command("list"), command("prune"), command("prune", "--all")) == (0, 0, 0)
    assert capsys.readouterr().out.startswith(f"0 images, 0.0 MB in {store.root};")


def test_list_marks_what_is_current(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    old = add(store, "kernel-debian-6.1", "old")
    new = add(store, "kernel-debian-6.1", "new")
    store.point(KERNEL_KEY, new)
    assert command("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("* kernel-debian-6.1")
    assert lines[0].endswith(new)
    assert lines[1].startswith("  kernel-debian-6.1")
    assert lines[1].endswith(old)
    assert command("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["current"], row["packages"]) for row in rows] == [
        (new, True, {"p": "1"}),
        (old, False, {"p": "1"}),
    ]


def test_prune_keeps_what_is_current_and_what_is_made_of_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    old = add_kernel_with_guests(store, "old", 1)
    new = add_kernel_with_guests(store, "new", 3)
    store.point(KERNEL_KEY, new[0])
    store.point("recipe-of-another-version", old[0])
    (store.root / "apt/bookworm-0123").mkdir(parents=True)
    (store.root / "apt/bookworm-0123/index").write_bytes(bytes(5_000_000))
    assert command("prune") == 0
    assert {path.name for path in store.objects()} == {new[0], new[1], new[-1]}
    assert store.pointers() == {KERNEL_KEY: new[0]}
    assert list((store.root / "apt").iterdir()) == []
    said = capsys.readouterr().out
    assert [f"removed {name}" in said for name in old] == [True] * len(old)
    assert "10.0 MB freed" in said


def test_prune_all_leaves_nothing_but_what_is_in_use(store: Store) -> None:
    names = add_kernel_with_guests(store, "new", 1)
    store.point(KERNEL_KEY, names[0])
    user = Store(store.root)
    assert user.find(names[1]) is not None
    done = prune(store, everything=True)
    assert done.in_use == (names[1],)
    assert set(done.removed) == {names[0], names[2]}
    assert store.current(KERNEL_KEY) is None
    user.release()
    assert prune(store, everything=True).removed == (names[1],)
    assert list_(store) == ()


def test_two_processes_trim_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one removes an image after this one has read what there is."""
    new = add_kernel_with_guests(store, "new", KEPT_GUESTS + 2)
    store.point(KERNEL_KEY, new[0])
    read = catalogue._manifests

    def then_the_other(of: Store) -> dict[Path, dict[str, Any]]:
        found = read(of)
        assert store.remove(store.root / "store" / new[2])
        return found

    monkeypatch.setattr(catalogue, "_manifests", then_the_other)
    trim(store)
    assert {path.name for path in store.objects()} == {*new[:2], *new[-KEPT_GUESTS:]}


def test_edits_and_bisections_do_not_fill_the_disk(store: Store) -> None:
    new = add_kernel_with_guests(store, "new", 10)
    store.point(KERNEL_KEY, new[0])
    own = [add(store, "kernel-own", f"k{number}") for number in range(10)]
    bases = [add(store, "base", f"bk{number}", kernel={"digest": f"k{number}"}) for number in range(10)]
    trim(store)
    expected = {*new[:2], *new[-KEPT_GUESTS:], *own[-KEPT_OWN:], *bases[-KEPT_OWN:]}
    assert {path.name for path in store.objects()} == expected
