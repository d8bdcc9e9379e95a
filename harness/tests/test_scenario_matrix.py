"""The matrix: bad axes, bad uses, and what a good one expands to."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario.load import load
from harness.scenario.model import agrees
from harness.tests.scenario_table import GOOD, Row, problems_of, row

ROWS = [
    row(
        "floats as axis values",
        "[e1000, virtio-net]",
        "[6.1, 6.10]",
        '3:9: YAML reads 6.1 as 6.1, and an axis value is text; write "6.1"',
        '3:14: YAML reads 6.10 as 6.1, and an axis value is text; write "6.10"',
    ),
    row(
        "unknown axis",
        '"${nic}"',
        '"${nik}"',
        "6:17: ${nik} names no axis of the matrix; did you mean 'nic'? (a literal ${...} is written $${...})",
    ),
    row(
        "axis that is not used",
        '"${nic}"',
        "e1000",
        "3:3: axis 'nic' changes nothing; use ${nic} somewhere, or remove the axis",
    ),
    row(
        "axis without values",
        "[e1000, virtio-net]",
        "[]",
        "3:8: axis 'nic' has no values; give a list, e.g. [e1000, virtio-net]",
    ),
    row(
        "axis that is no list",
        "[e1000, virtio-net]",
        "e1000",
        "3:8: axis 'nic' has no values; give a list, e.g. [e1000, virtio-net]",
    ),
    row(
        "axis value twice",
        "[e1000, virtio-net]",
        "[e1000, e1000]",
        "3:16: axis value 'e1000' is listed twice; remove one",
    ),
    row(
        "list as an axis value",
        "[e1000, virtio-net]",
        "[[e1000]]",
        "3:9: an axis value is a word or a whole number; use several axes, or several testcases",
    ),
    row(
        "axis value no folder can be called",
        "[e1000, virtio-net]",
        "[a/b]",
        "3:9: axis value 'a/b' cannot be part of a name; use letters, digits, _ . + -, a letter or digit first",
    ),
    row(
        "axis name in capitals",
        "nic: [e1000",
        "NIC: [e1000",
        "3:3: axis name 'NIC'; use a-z, 0-9 and _, a letter first, at most 15",
        "6:17: ${nic} names no axis of the matrix; axes: NIC (a literal ${...} is written $${...})",
    ),
    row(
        "on and off as axis values",
        "[e1000, virtio-net]",
        "[on, off]",
        '3:9: YAML reads on as true, and an axis value is text; write "on"',
        '3:13: YAML reads off as false, and an axis value is text; write "off"',
    ),
    row(
        "unknown model in the axis is shown there",
        "[e1000, virtio-net]",
        "[e1000, virtio]",
        "3:16: unknown NIC model 'virtio'; did you mean 'virtio-net'?",
    ),
    row(
        "known bug with a float",
        "expect:",
        "known_bugs:\n  - {when: {nik: e1000, kernel: 6.1}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        '23:33: text is expected here, but YAML reads 6.1 as the number 6.1; write "6.1"',
    ),
    row(
        "known bug that never applies",
        "expect:",
        "known_bugs:\n  - {when: {nic: e1001}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        "23:12: no combination of the matrix is like this; correct the values",
    ),
    row(
        "known bug with an unknown axis",
        "expect:",
        "known_bugs:\n  - {when: {nik: e1000}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        "23:13: 'nik' is no axis of the matrix; did you mean 'nic'?",
    ),
    row(
        "known bug that passes",
        "expect:",
        "known_bugs:\n  - {when: {nic: e1000}, verdict: PASS, reason: a reason that is long}\nexpect:",
        "23:35: PASS is no bug; give the verdict that comes out for now",
    ),
    row(
        "known bug that does not say what fails",
        "expect:",
        "known_bugs:\n  - {when: {nic: e1000}, verdict: FAIL, reason: a reason that is long}\nexpect:",
        "23:35: which checks fail is not said; add e.g. `checks: [delivered]`",
    ),
    row(
        "known bug in a check that is not there",
        "expect:",
        "known_bugs:\n  - {when: {nic: e1000}, verdict: FAIL, checks: [deliverd], reason: a reason that is long}\nexpect:",
        "23:50: 'deliverd' is no check of this testcase; did you mean 'delivered'?",
    ),
    row(
        "known bug that a line tells, which is no regular expression",
        "expect:",
        "known_bugs:\n  - {when: {nic: e1000}, console: '(panic', verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        "23:35: '(panic' is no regular expression: missing ), unterminated subpattern at position 0; escape special characters with \\",
    ),
    row(
        "known failure by chance",
        "expect:",
        "known_bugs:\n  - {when: {nic: e1000}, by_chance: true, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        "23:26: chance decides whether something is reached, and FAIL is not about that; remove it, or say what tells with `console` or `queue`",
    ),
    row(
        "known error by a check",
        "expect:",
        "known_bugs:\n  - {when: {nic: e1000}, verdict: ERROR, checks: [kernel], reason: a reason that is long}\nexpect:",
        "23:42: an ERROR comes from the testbed, not from a check; remove it",
    ),
    row(
        "known bug of an unknown kernel",
        "expect:",
        "known_bugs:\n  - {when: {kernel: debian-6.13}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        "23:21: unknown kernel 'debian-6.13'; did you mean 'debian-6.1'?",
    ),
    row(
        "known bugs of the other kernel, that --kernel may choose",
        "expect:",
        "known_bugs:\n  - {when: {kernel: debian-6.12}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\n  - {when: {kernel: debian-6.1}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
    ),
    row(
        "known bugs of all NICs but one, and of that one",
        "expect:",
        "known_bugs:\n  - {when: {nic: not e1000*}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\n  - {when: {nic: e1000*}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
    ),
    row(
        "known bug of all kernels but an unknown one",
        "expect:",
        "known_bugs:\n  - {when: {kernel: not debian-6.13}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        "23:21: unknown kernel 'debian-6.13'; did you mean 'debian-6.1'?",
    ),
    row(
        "known bugs of one kernel, and of all but another",
        "expect:",
        "known_bugs:\n  - {when: {kernel: debian-6.12}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\n  - {when: {kernel: not debian-6.1}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        "24:12: two known bugs apply to one combination, this one and number 1; narrow one of them",
    ),
    row(
        "two known bugs at once on one kernel",
        "expect:",
        "known_bugs:\n  - {when: {kernel: debian-6.12}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\n  - {when: {nic: e1000}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        "24:12: two known bugs apply to one combination, this one and number 1; narrow one of them",
    ),
    row(
        "two known bugs at once",
        "expect:",
        "known_bugs:\n  - {when: {nic: e1000}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\n  - {when: {}, verdict: FAIL, checks: [delivered], reason: a reason that is long}\nexpect:",
        "24:12: two known bugs apply to one combination, this one and number 1; narrow one of them",
    ),
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_matrix_mistakes_are_refused_in_the_matrix(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems


def write(folder: Path, *replacements: tuple[str, str]) -> Path:
    text = GOOD
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    file = folder / "case.yaml"
    file.write_text(text)
    return file


def test_each_combination_is_a_case_and_the_last_axis_varies_fastest(tmp_path: Path) -> None:
    file = write(tmp_path, ("matrix:\n", "matrix:\n  crash: [sysrq-c, nmi]\n"), ("how: sysrq-c", 'how: "${crash}"'))
    assert [scenario.case for scenario in load(file)] == [
        "case[crash=sysrq-c,nic=e1000]",
        "case[crash=sysrq-c,nic=virtio-net]",
        "case[crash=nmi,nic=e1000]",
        "case[crash=nmi,nic=virtio-net]",
    ]


def test_without_a_matrix_there_is_one_case_called_like_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, ("matrix:\n  nic: [e1000, virtio-net]\n", ""), ('"${nic}"', "e1000"))
    assert [(scenario.case, scenario.params) for scenario in load(file)] == [("case", {})]


def test_a_string_that_is_only_an_axis_becomes_its_value(tmp_path: Path) -> None:
    smp = ("guest:\n", 'guest:\n  smp: "${smp}"\n')
    found = load(write(tmp_path, ("matrix:\n", "matrix:\n  smp: [1, 2]\n"), smp))
    assert [scenario.guest.smp for scenario in found] == [1, 1, 2, 2]
    assert found[-1].params == {"smp": "2", "nic": "virtio-net"}, "in names and params every value is text"


def test_inside_a_string_an_axis_is_text_and_a_doubled_dollar_is_a_dollar(tmp_path: Path) -> None:
    run = ("- crash:", '- run: {argv: [echo, "on ${nic}: $${HOME} $x {nic}"]}\n  - crash:')
    found = load(write(tmp_path, run))
    assert [step.run.argv[1] for step in found[0].steps if step.run] == ["on e1000: ${HOME} $x {nic}"]


def test_a_large_matrix_is_refused(tmp_path: Path) -> None:
    axes = "".join(f"  {axis}: [{', '.join(map(str, range(11)))}]\n" for axis in "abc")
    uses = ("about: ", "about: ${a}${b}${c} ")
    assert problems_of(tmp_path, "matrix:\n", "matrix:\n") == ()
    text = GOOD.replace("matrix:\n", "matrix:\n" + axes).replace(*uses)
    assert problems_of(tmp_path, GOOD, text) == (
        "2:1: the matrix has 2662 combinations; keep it under 1000, in several testcases",
    )


@pytest.mark.parametrize(
    ("wanted", "value", "does"),
    [
        ("e1000", "e1000", True),
        ("e1000", "e1000e", False),
        ("e1000*", "e1000e", True),
        ("not e1000*", "e1000e", False),
        ("not e1000", "e1000e", True),
        ("not e1000", None, False),
        ("*", None, False),
    ],
)
def test_what_a_known_bug_is_of(wanted: str, value: str | None, does: bool) -> None:
    assert agrees(wanted, value) == does
