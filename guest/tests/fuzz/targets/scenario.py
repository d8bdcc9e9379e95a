"""Files into the loader of testcases.

In: a file's octets. Held: it is a testcase, which loads again the same, or ScenarioErrors, each problem with a place
inside the file, in words.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from guest.tests.fuzz.table import Target
from harness.scenario.errors import Problem, ScenarioErrors
from harness.scenario.load import load
from harness.scenario.model import Scenario

ROOT = Path(__file__).parents[4]
KERNELS = ("debian-6.1", "debian-6.12")


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-scenario-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def run(data: bytes) -> None:
    file = _folder() / "case.yaml"
    file.write_bytes(data)
    try:
        scenarios = load(file, KERNELS)
    except ScenarioErrors as errors:
        _check_errors(errors, file, data)
        return
    assert scenarios
    assert load(file, KERNELS) == scenarios
    assert len({scenario.case for scenario in scenarios}) == len(scenarios)
    for scenario in scenarios:
        assert Scenario.model_validate(scenario.model_dump(by_alias=True)) == scenario


def _check_errors(errors: ScenarioErrors, file: Path, data: bytes) -> None:
    assert errors.problems
    for problem in errors.problems:
        _check(problem, file, data)


def _check(problem: Problem, file: Path, data: bytes) -> None:
    assert problem.file == str(file)
    assert problem.what
    assert problem.remedy
    assert str(problem).startswith(str(file))
    lines = len(re.split("\r\n|[\r\n\x85\u2028\u2029]", data.decode("utf-8", "replace")))
    assert 0 <= problem.at.line <= lines + 1, f"{problem} is outside of {lines} lines"
    assert problem.at.column >= 0


def encoded() -> Iterator[bytes]:
    for path in sorted([*ROOT.glob("testcases/*/*.yaml"), *ROOT.glob("harness/tests/must_fail/*.yaml")]):
        yield _without_comments(path.read_bytes())
    yield b"a: " + b"{b: " * 30 + b"1" + b"}" * 30
    yield b"about: !!int abc\nkernel: 0x_\nmatrix: !!timestamp 2001-13-45\nname: !!float .\nguest: !!binary %\n"
    yield b"about: 2001-02-30\nkernel: 1:90\nname: 1e999\nmatrix: =\nguest: ~\ntimeout: .nan\n" + b"x: " + b"9" * 400
    yield b"a: &a [1, 1]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\ne: &e [*d, *d]\n"
    yield b"a: &x [1]\nb: *x\n<<: {c: 1}\n"
    yield b"guest: {nics: {n0: {mac: 52:54:00:12:34:56, on: yes}}}\nkernel: 6.10\n"


def _without_comments(text: bytes) -> bytes:
    return b"".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith(b"#"))


@cache
def _words() -> tuple[bytes, ...]:
    """Every key and bare word of the shipped testcases."""
    found = {word for text in encoded() for word in re.findall(rb"[a-z][a-z0-9_-]{2,20}:?", text)}
    return tuple(sorted(found))[:400]


TARGET = Target(
    run, encoded, (b"${nic}", b": ", b"- ", b"\n  ", b"!!", b"&a ", b"*a", b"{", b"]", *_words()), max_len=1500
)
