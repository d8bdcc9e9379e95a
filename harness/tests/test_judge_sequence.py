"""The extended netconsole's numbers against the kernel's log: what is missing, torn, doubled, out of order or different."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.tests.judge_evidence import datagrams, event, kmsg, numbered, plan, run

TEXTS = [line.partition("] ")[2] for line in numbered(6)]
LOG: list[Any] = [
    [14, 100 + number, text] for number, text in enumerate(["before", *TEXTS, "eth0: something of the kernel's own"])
]


def packet(number: int, text: str, part: str = "") -> bytes:
    return f"14,{number},{number * 10},-{part};{text}\n".encode()


def pieces(number: int, text: str, cut: int = 20) -> list[bytes]:
    body = f"{text}\n".encode()
    parts = ((offset, body[offset : offset + cut]) for offset in range(0, len(body), cut))
    return [f"14,{number},{number * 10},-,ncfrag={offset}/{len(body)};".encode() + part for offset, part in parts]


WIRE = [packet(number, str(text)) for _, number, text in LOG[1:]]


def sequence(wire: list[bytes], log: list[Any] | None = None, **keys: int) -> CheckResult:
    planned = plan({"sequence": {"from": "g", "to": "h", **keys}}, stack="kernel", extended=True)
    told: Event = event(5.0, "guest", "records", records=LOG if log is None else log)
    return judge(planned, run(kmsg(6), datagrams(wire, start=2.0), told)).checks[0]


def test_every_number_of_the_log_is_on_the_wire() -> None:
    check = sequence(WIRE)
    assert check.held, check
    assert check.numbers == {"records": 7, "came": 7, "fragmented": 0}


WRONG: dict[str, tuple[list[bytes], str]] = {
    "two missing": ([*WIRE[:2], *WIRE[4:]], "missing: records 103-104"),
    "the kernel's own": (WIRE[:-1], "missing: record 107"),
    "twice": ([*WIRE[:3], WIRE[2], *WIRE[3:]], "came twice: record 103"),
    "swapped": ([WIRE[1], WIRE[0], *WIRE[2:]], "out of order: record 101"),
    "another text": ([packet(101, "npt k 0 other"), *WIRE[1:]], "record 101 is `npt k 0 other` on the wire"),
    "a fragment missing": ([*pieces(101, TEXTS[0])[:-1], *WIRE[1:]], "a fragment is missing of: record 101"),
}


@pytest.mark.parametrize(("wire", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong(wire: list[bytes], words: str) -> None:
    check = sequence(wire)
    assert not check.held
    assert any(words in said for said in check.findings), check.findings


def test_fragments_are_put_together_in_any_order() -> None:
    parts = pieces(101, TEXTS[0])
    assert len(parts) > 2
    check = sequence([*reversed(parts), *WIRE[1:]], fragments=1)
    assert check.held, check
    assert check.numbers["fragmented"] == 1


def test_not_reached_without_records_or_fragments() -> None:
    assert not sequence(WIRE, log=[]).reached
    assert not sequence(WIRE, at_least=8).reached
    assert not sequence(WIRE, fragments=1).reached


@pytest.mark.parametrize("bad", [[[1, 2]], [[1, "2", "x"]], ["x"], [[1, 2, 3]]])
def test_records_of_another_shape_are_an_error(bad: list[object]) -> None:
    planned = plan({"sequence": {"from": "g", "to": "h"}}, stack="kernel", extended=True)
    assert judge(planned, run(kmsg(6), event(5.0, "guest", "records", records=bad))).word == "ERROR"
