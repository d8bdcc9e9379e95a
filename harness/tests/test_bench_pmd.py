"""The table of `bench pmd`: the median round counts, goals are met, missed, or inconclusive; and the C loop compiles where it can."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.bench import pmd

MICRO = 1e-6


def figures(**changed: float) -> pmd.Figures:
    """Three rounds, the second one disturbed."""
    quick = dict.fromkeys(pmd.ROWS, 10.0) | {"sendto": 40.0}
    return {
        what: [us * MICRO, us * 5 * MICRO, us * MICRO] for what, us in {**quick, **changed}.items() if what in pmd.ROWS
    }


def line(found: dict[str, pmd.Figures], words: str) -> str:
    (one,) = (each for each in pmd.table(found) if each.startswith(words))
    return one


def test_ratios_and_goals() -> None:
    found = {"e1000": figures(send_udp=20.0), "virtio-net": figures(batch=12.5, receive=9.0)}
    assert "2.00 x   (goal 3x: MISSED)" in line(found, "e1000: send_udp against sendto")
    assert "4.00 x   (goal 3x: met)" in line(found, "e1000: batch against sendto")
    assert "1.11 x   (goal 1x: met)" in line(found, "virtio-net: receive against recvfrom")
    assert "0.80 x   (goal 1x: MISSED)" in line(found, "virtio-net against e1000: batch")
    assert line(found, "e1000: the device model takes of batch").endswith("100%")
    assert not pmd.met(found)
    assert pmd.met({"e1000": figures(), "virtio-net": figures()})


def test_without_a_compiler_its_goal_is_inconclusive_and_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pmd.compiled(tmp_path) is None
    found = {
        model: {what: took for what, took in figures().items() if what != "C sendto"}
        for model in ("e1000", "virtio-net")
    }
    assert "inconclusive" in line(found, "e1000: batch against C sendto")
    assert pmd.met(found)


def test_the_c_loop_compiles_and_takes_no_nonsense(tmp_path: Path) -> None:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    program = pmd.compiled(tmp_path)
    assert program is not None
    assert program.startswith(b"\x7fELF")
