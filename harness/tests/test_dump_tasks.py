"""drgn's look at a dump: what it refuses is told, where it is absent nobody pretends. The list itself is of a real dump: testcases/netdump."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.dump import tasks


def test_without_drgn_nobody_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert tasks.tasks(tmp_path / "vmcore", tmp_path / "vmlinux") == {"absent": "drgn is not installed"}


def test_a_kernel_without_btf_is_named(tmp_path: Path) -> None:
    pytest.importorskip("drgn")
    (tmp_path / "vmlinux").write_bytes(b"no kernel")
    assert "does not say what a task_struct is" in tasks.tasks(tmp_path / "vmcore", tmp_path / "vmlinux")["absent"]


def test_what_is_no_dump_is_refused_by_drgn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("drgn")
    (tmp_path / "vmcore").write_bytes(b"KDUMP   " + bytes(8192) + tasks.KALLSYMS)
    places = {("task_struct", field): 8 for field in tasks.FIELDS}
    monkeypatch.setattr(tasks, "layout", lambda *_: type("Layout", (), {"offsets": places})())
    assert "drgn ended with 1" in tasks.tasks(tmp_path / "vmcore", tmp_path / "vmlinux")["refused"]


def test_a_kernel_that_does_not_say_where_its_symbols_are_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("drgn")
    (tmp_path / "vmcore").write_bytes(b"KDUMP   " + bytes(8192))
    places = {("task_struct", field): 8 for field in tasks.FIELDS}
    monkeypatch.setattr(tasks, "layout", lambda *_: type("Layout", (), {"offsets": places})())
    assert "since 6.0" in tasks.tasks(tmp_path / "vmcore", tmp_path / "vmlinux")["absent"]
