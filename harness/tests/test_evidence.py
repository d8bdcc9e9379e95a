"""Evidence survives whatever ends the harness, and wakes who waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from harness.observe.events import Clock, Evidence, read_evidence


def evidence(tmp_path: Path) -> Evidence:
    return Evidence(tmp_path / "evidence.jsonl", Clock.start())


def test_events_read_back_as_written(tmp_path: Path) -> None:
    file = evidence(tmp_path)
    written = [file.add("console", "line", t=1.25, text='quotes " and \\ and ü'), file.add("run", "end")]
    assert list(read_evidence(file.path)) == written


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    file = evidence(tmp_path)
    file.add("run", "start")
    with file.path.open("a") as half:
        half.write('{"t":1,"src":"con')
    assert [event["kind"] for event in read_evidence(file.path)] == ["start"]


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"t": 1}'])
def test_a_bad_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "evidence.jsonl"
    path.write_text(f'{{"t":0,"src":"run","kind":"start"}}\n{line}\n{{"t":1,"src":"run","kind":"end"}}\n')
    with pytest.raises(ValueError, match=r"evidence\.jsonl:2"):
        list(read_evidence(path))


def test_own_keys_cannot_be_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="src"):
        evidence(tmp_path).add("wire", "frame", src="10.0.0.1")


def test_until_sees_the_past_and_is_woken_by_other_threads(tmp_path: Path) -> None:
    file = evidence(tmp_path)
    file.add("host", "rx", seq=0)
    seen: list[int] = []

    def take(event: dict[str, int]) -> bool:
        seen.append(event["seq"])
        return len(seen) == 3

    def later() -> None:
        file.add("host", "rx", seq=1)
        file.add("host", "rx", seq=2)

    async def wait() -> bool:
        threading.Timer(0.05, later).start()
        return await file.until(take, time.monotonic() + 5)

    assert asyncio.run(wait())
    assert seen == [0, 1, 2]


def test_until_gives_up_at_its_deadline(tmp_path: Path) -> None:
    assert not asyncio.run(evidence(tmp_path).until(lambda _event: True, time.monotonic() + 0.01))
