"""TAP and KTAP: what each verdict becomes, and that nobody else's words become a result."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.cli import main
from harness.judge.model import CheckResult, Verdict, Word
from harness.report import tap
from harness.tests.report_cases import KINDS, make

RESULT = re.compile(r"^( *)(ok|not ok) (\d+) ([^#]*?)(?: # (SKIP|TODO|XFAIL|ERROR) (.+))?$")


def check(name: str, reached: bool = True, held: bool | None = True, *findings: str) -> CheckResult:
    return CheckResult(check=name, about="a", reached=reached, held=held, why="as seen", findings=findings)


def verdict(word: Word, *checks: CheckResult, bug: str | None = None) -> Verdict:
    return Verdict(
        case=f"crash/{word}[nic=e1000]", word=word, why="its reason", checks=checks, known_bug=bug, seconds=1.5
    )


WORDS: list[tuple[Word, str, str]] = [
    ("PASS", "ok 1 crash/PASS[nic=e1000]", "ok 1 crash/PASS[nic=e1000]"),
    ("FAIL", "not ok 1 crash/FAIL[nic=e1000]", "not ok 1 crash/FAIL[nic=e1000]"),
    ("KNOWN_BUG", "not ok 1 crash/KNOWN_BUG[nic=e1000] # TODO 4711", "not ok 1 crash/KNOWN_BUG[nic=e1000] # XFAIL 4711"),
    ("INCONCLUSIVE", "ok 1 crash/INCONCLUSIVE[nic=e1000] # SKIP its reason", "ok 1 crash/INCONCLUSIVE[nic=e1000] # SKIP its reason"),
    ("ERROR", "not ok 1 crash/ERROR[nic=e1000]", "not ok 1 crash/ERROR[nic=e1000] # ERROR its reason"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "plain", "kernel"), WORDS, ids=[word for word, *_ in WORDS])
def test_a_verdict_is_a_result(word: Word, plain: str, kernel: str) -> None:
    given = [verdict(word, bug="4711" if word == "KNOWN_BUG" else None)]
    assert plain in list(tap.lines(given, tap.TAP))
    assert kernel in list(tap.lines(given, tap.KTAP))


def test_ktap_has_its_version_plan_and_a_level_for_the_checks() -> None:
    given = [
        verdict("FAIL", check("parity", True, False, "lost: line 3"), check("kernel"), check("silence", False, None))
    ]
    assert list(tap.lines(given, tap.KTAP)) == [
        "KTAP version 1",
        "1..1",
        "    KTAP version 1",
        "    1..3",
        "    # lost: line 3",
        "    not ok 1 parity",
        "    ok 2 kernel",
        "    ok 3 silence # SKIP as seen",
        "# FAIL: its reason",
        "not ok 1 crash/FAIL[nic=e1000]",
    ]


def test_tap_has_its_version_a_named_subtest_and_a_yaml_block() -> None:
    assert list(tap.lines([verdict("FAIL", check("parity", True, False))], tap.TAP)) == [
        "TAP version 13",
        "1..1",
        "    # Subtest: crash/FAIL[nic=e1000]",
        "    1..1",
        "    not ok 1 parity",
        "not ok 1 crash/FAIL[nic=e1000]",
        "  ---",
        "  verdict: FAIL",
        "  why: 'its reason'",
        "  ...",
    ]


@pytest.mark.parametrize("dialect", tap.DIALECTS.values(), ids=tap.DIALECTS)
def test_a_guest_cannot_write_results(dialect: tap.Dialect) -> None:
    evil = "x\nok 2 everything # SKIP\n\x1b[2J\r1..9\nBail out!\nit's"
    given = [
        Verdict(case="a", word="FAIL", why=evil, checks=(check("parity", True, False, evil),), seconds=1),
        Verdict(case="b", word="INCONCLUSIVE", why=evil, checks=(), seconds=1),
    ]
    lines = list(tap.lines(given, dialect))
    results = [line for line in lines if RESULT.match(line)]
    assert [RESULT.match(line)[4] for line in results if RESULT.match(line)] == ["parity", "a", "b"]  # type: ignore[index]
    assert sum(line.strip().startswith("1..") for line in lines) == 2
    assert not [line for line in lines if line.strip().startswith("Bail") or "\x1b" in line or "\n" in line]


@pytest.mark.parametrize("form", tap.DIALECTS)
def test_judge_prints_it(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        make(tmp_path, kind)
    assert main(["judge", str(tmp_path), "--format", form]) == 1
    lines = capsys.readouterr().out.splitlines()
    top = [RESULT.match(line) for line in lines if not line.startswith(" ") and RESULT.match(line)]
    assert lines[1] == f"1..{len(KINDS)}"
    assert [int(found[3]) for found in top if found] == list(range(1, len(KINDS) + 1))
    assert sorted(found[2] for found in top if found) == ["not ok"] * 3 + ["ok"] * 3


PROVE = shutil.which("prove")


@pytest.mark.skipif(PROVE is None, reason="no prove here, the reader of TAP that comes with Perl")
@pytest.mark.parametrize("form", tap.DIALECTS)
def test_prove_reads_it(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        make(tmp_path / "runs", kind)
    assert main(["judge", str(tmp_path / "runs"), "--format", form]) == 1
    file = tmp_path / "results.tap"
    file.write_text(capsys.readouterr().out)
    done = subprocess.run([str(PROVE), "-e", "cat", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert "Parse errors" not in done.stdout
    failed = {"tap": "2-3", "ktap": "2-3, 5"}[form]  # XFAIL is the kernel's own word, which prove does not know
    assert re.search(rf"Failed tests?:\s+{failed}$", done.stdout, re.MULTILINE), done.stdout
    assert f"Files=1, Tests={len(KINDS)}," in done.stdout
