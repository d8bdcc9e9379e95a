"""Seeded defects of the stack, of a kernel and of the harness: a check that is named turns the case of each. The table and the score are printed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from harness.mutants import drivers, harnesses, kernels, stack
from harness.mutants.defect import Defect, seeded
from harness.mutants.kernels import Flaw
from harness.mutants.run import Outcome, of_kernel, of_stack, outcomes, report


@cache
def every() -> tuple[Outcome, ...]:
    return tuple(outcomes())


def test_every_seeded_defect_is_caught_by_the_check_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print()
        all_caught = report(every(), print)
    missed = [outcome.name for outcome in every() if not outcome.caught]
    assert all_caught, missed
    assert not missed


def test_without_a_defect_each_case_is_as_it_must_be() -> None:
    assert [outcome.name for outcome in every() if not outcome.right_before] == []


def test_there_are_enough_and_no_two_alike() -> None:
    names = [outcome.name for outcome in every()]
    assert len(names) == len(set(names)) >= 110
    assert {outcome.kind for outcome in every()} == {"stack", "kernel", "harness"}


@pytest.mark.parametrize("defect", [drivers.TABLE[0], stack.TABLE[0]], ids=lambda defect: defect.where)
def test_a_defect_that_changes_nothing_is_not_caught(defect: Defect) -> None:
    assert not of_stack(replace(defect, broken=lambda sound: sound)).caught


def test_a_flaw_that_changes_nothing_is_not_caught() -> None:
    assert not of_kernel(replace(kernels.TABLE[0], change=lambda events: events)).caught


def test_a_defect_that_another_check_catches_is_not_caught_by_the_named_one() -> None:
    flaw: Flaw = kernels.TABLE[0]
    assert not of_kernel(replace(flaw, check="macs")).caught


def test_what_was_broken_is_whole_again() -> None:
    for defect in (*drivers.TABLE, *stack.TABLE):
        with seeded(replace(defect, broken=lambda sound: sound)):
            pass
    blind = harnesses.TABLE[0]
    with pytest.raises(AttributeError), seeded(Defect("", f"{blind.where}_gone", blind.broken, "", "")):
        pass
