"""What a person sees of a build."""

from __future__ import annotations

import io

import pytest

from images.progress import PlainText, describe, stage


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("done", "total", "expected"),
    [
        (None, None, "fetch: 1.5 s"),
        (2_000_000, None, "fetch: 2.0 MB, 1.5 s"),
        (2_000_000, 38_000_000, "fetch: 2.0 of 38.0 MB, 1.5 s"),
        (38_000_000, 38_000_000, "fetch: 38.0 MB, 1.5 s"),
        (0, 0, "fetch: 1.5 s"),
    ],
)
def test_a_step_in_words(done: int | None, total: int | None, expected: str) -> None:
    assert describe("fetch", done, total, 1.5) == expected


def test_a_terminal_shows_one_line_that_is_rewritten() -> None:
    out = Terminal()
    shown = PlainText(out)
    for done in (None, 1_000_000, 2_000_000):
        shown.step("fetch", done, 2_000_000, 0.1)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().split("\r\x1b[K")[-1] == "fetch: 2.0 MB, 0.1 s\n"


def test_elsewhere_a_long_step_says_something_every_five_seconds() -> None:
    out = io.StringIO()
    shown = PlainText(out)
    for second in range(13):
        shown.step("fetch", second * 1_000_000, 12_000_000, float(second))
    assert out.getvalue().splitlines() == [
        "fetch: 5.0 of 12.0 MB, 5.0 s",
        "fetch: 10.0 of 12.0 MB, 10.0 s",
        "fetch: 12.0 MB, 12.0 s",
    ]


def test_a_stage_is_over_when_its_block_ends_and_not_when_it_fails() -> None:
    out = io.StringIO()
    with stage(PlainText(out), "good") as running:
        running.update(5_000_000, 5_000_000)
        assert out.getvalue() == ""
    assert out.getvalue().startswith("good: 5.0 MB, ")

    def fail() -> None:
        with stage(PlainText(out), "bad"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "bad" not in out.getvalue()
