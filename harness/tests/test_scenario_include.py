"""Fragments: what an include becomes, and every error where it stands, in the fragment or in the testcase that includes it."""

from __future__ import annotations

import random
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.plan.explain import explain
from harness.run import Options
from harness.run import load as planned
from harness.scenario.errors import ScenarioErrors
from harness.scenario.fragment import SECTIONS
from harness.scenario.load import load, load_tree
from harness.scenario.model import Scenario

ROOT = Path(__file__).resolve().parents[2]

CASE = """\
about: everything that the kernel says is on the wire
matrix:
  nic: [e1000, virtio-net]
guest:
  nics:
    n0: {model: "${nic}"}
include: {file: parts/last.fragment.yaml, with: {how: sysrq-c}}
"""
LAST = """\
fragment: the kernel dies, and all that it says must arrive
needs: [how]
params:
  device: n0
  within: 30
endpoints:
  netconsole: {at: guest, stack: kernel, device: "${device}", peer: log}
  log: {at: host, stack: netpoll, device: "${device}", peer: netconsole}
steps:
  - crash: {how: "${how}", within: "${within}"}
expect:
  - parity: {to: log}
"""


def write(root: Path, case: str = CASE, **fragments: str) -> Path:
    """A testcase and its fragments in parts/; parts/last.fragment.yaml is LAST if nothing is said."""
    (root / "parts").mkdir(exist_ok=True)
    for name, text in {"last": LAST, **fragments}.items():
        (root / "parts" / f"{name}.fragment.yaml").write_text(text)
    file = root / "case.yaml"
    file.write_text(case)
    return file


def one(root: Path, case: str = CASE, **fragments: str) -> Scenario:
    return load(write(root, case, **fragments))[0]


def said(scenario: Scenario) -> dict[str, Any]:
    return scenario.model_dump(by_alias=True, exclude_unset=True)


def problems(root: Path, case: str = CASE, **fragments: str) -> list[str]:
    """Each problem, with paths as seen from the testcase's folder."""
    with pytest.raises(ScenarioErrors) as caught:
        load(write(root, case, **fragments))
    return [str(problem).replace(f"{root}/", "") for problem in caught.value.problems]


def test_an_include_stands_for_what_the_fragment_says(tmp_path: Path) -> None:
    written_out = CASE.partition("include")[0] + LAST.partition("device: n0\n  within: 30\n")[2]
    for name, value in {"device": "n0", "how": "sysrq-c", "within": "30"}.items():
        written_out = re.sub(rf'"?\$\{{{name}\}}"?', value, written_out)
    cases = load(write(tmp_path))
    (tmp_path / "whole").mkdir()
    assert cases == load(write(tmp_path / "whole", written_out))
    assert [case.params["nic"] for case in cases] == ["e1000", "virtio-net"]


def test_parameters_are_given_or_keep_their_default_and_a_number_stays_one(tmp_path: Path) -> None:
    case = CASE.replace("how: sysrq-c", "how: nmi, within: 5")
    assert said(one(tmp_path, case))["steps"] == ({"crash": {"how": "nmi", "within": 5}},)


def test_an_axis_is_handed_in_and_a_parameter_may_stand_inside_text(tmp_path: Path) -> None:
    last = LAST.replace("- crash:", '- run: {argv: [echo, "${how} of ${device} $${HOME}"]}\n  - crash:')
    case = CASE.replace("nic: [e1000, virtio-net]", "nic: [e1000]\n  how: [nmi]").replace("sysrq-c", '"${how}"')
    steps = said(one(tmp_path, case, last=last))["steps"]
    assert steps == ({"run": {"argv": ("echo", "nmi of n0 ${HOME}")}}, {"crash": {"how": "nmi", "within": 30}})


def test_lists_are_parameters_too(tmp_path: Path) -> None:
    last = LAST.replace("  within: 30\n", "  within: 30\n  size: [16, 20]\n").replace(
        "  - crash", '  - send: {from: netconsole, count: 2, size: "${size}"}\n  - crash'
    )
    assert said(one(tmp_path, last=last))["steps"][0]["send"]["size"] == (16, 20)
    case = CASE.replace("how: sysrq-c", "how: sysrq-c, size: [30, 40]")
    assert said(one(tmp_path, case, last=last))["steps"][0]["send"]["size"] == (30, 40)


def test_mappings_are_joined_key_by_key_and_what_is_included_comes_first_in_lists(tmp_path: Path) -> None:
    case = CASE + "endpoints:\n  netconsole: {extended: true}\nexpect:\n  - event: {name: GUEST_PANICKED}\n"
    found = one(tmp_path, case)
    assert found.endpoints["netconsole"].extended
    assert found.endpoints["netconsole"].device == "n0"
    assert [next(iter(each)) for each in said(found)["expect"]] == ["parity", "event"]


def test_an_include_among_the_steps_puts_the_fragments_steps_there(tmp_path: Path) -> None:
    case = CASE.replace("include: {", "steps:\n  - inject: {link: n0, state: down}\n  - include: {")
    case += "  - wait: {event: GUEST_PANICKED}\n"
    found = one(tmp_path, case)
    assert [next(iter(step)) for step in said(found)["steps"]] == ["inject", "crash", "wait"]
    assert found.endpoints.keys() == {"netconsole", "log"}


def test_several_fragments_and_fragments_of_fragments(tmp_path: Path) -> None:
    outer = 'fragment: hands its parameter on to another fragment\nneeds: [how]\ninclude: {file: last.fragment.yaml, with: {how: "${how}"}}\n'
    knows = "fragment: what is known about all of these\nknown_bugs:\n  - {when: {}, verdict: FAIL, checks: [parity], reason: known since yesterday}\n"
    case = CASE.replace(
        "include: {file: parts/last", "include: [parts/knows.fragment.yaml, {file: parts/outer"
    ).replace("sysrq-c}}", "nmi}}]")
    found = one(tmp_path, case, outer=outer, knows=knows)
    assert said(found)["steps"] == ({"crash": {"how": "nmi", "within": 30}},)
    assert found.known_bugs[0].reason == "known since yesterday"


BY = " (included by case.yaml:7:17)"
NEEDS_SUFFIX = "a fragment's name ends in .fragment.yaml"
WRONG_CASE: list[tuple[str, str, str, list[str]]] = [
    ("no such file", "parts/last", "parts/lost", ["case.yaml:7:17: parts/lost.fragment.yaml cannot be read: No such file or directory; did you mean 'last.fragment.yaml'?"]),
    ("a folder that is not there", "parts/last", "bits/last", ["case.yaml:7:17: bits/last.fragment.yaml cannot be read: No such file or directory; fragments there: none"]),
    ("absolute", "parts/last", "/etc/last", ["case.yaml:7:17: /etc/last.fragment.yaml is a path of one machine; write it relative to the folder of this file"]),
    ("another suffix", "last.fragment.yaml", "last.yaml", [f"case.yaml:7:17: parts/last.yaml is no fragment; {NEEDS_SUFFIX}"]),
    ("chosen by an axis", "parts/last.fragment.yaml", "'parts/${nic}.fragment.yaml'", ["case.yaml:7:17: a fragment's path is fixed: the matrix does not choose it; make the fragment take a parameter"]),
    ("no parameter of that name", "how: sysrq-c", "how: nmi, devcie: n0", ["case.yaml:7:60: the fragment has no parameter 'devcie'; did you mean 'device'?"]),
    ("a parameter is missing", ", with: {how: sysrq-c}", "", ["case.yaml:7:17: the fragment needs 'how'; write {file: ..., with: {how: ...}}"]),
    ("unknown key", "with:", "wiht:", ["case.yaml:7:17: the fragment needs 'how'; write {file: ..., with: {how: ...}}", "case.yaml:7:43: unknown key 'wiht'; keys here: file, with"]),
    ("with is no mapping", "{how: sysrq-c}}", "sysrq-c}", ["case.yaml:7:49: `with` gives values to parameters; write {parameter: value}"]),
    ("no file", "file: parts/last.fragment.yaml, ", "", ["case.yaml:7:10: an include names no file; add `file: PATH`, a path of a file *.fragment.yaml"]),
    ("a bad value that the case gives", "sysrq-c", "sysrq-b", ["case.yaml:7:55: 'sysrq-b' is not one of sysrq-c, *"]),
    ("a trap that the case gives", "how: sysrq-c", "how: nmi, within: 010", ["case.yaml:7:68: YAML reads 010 as the number 8; write a decimal number, or quote it if it is text"]),
    ("a list inside text", "how: sysrq-c", "how: [a, b]", ["case.yaml:7:55: ['a', 'b'] is not one of sysrq-c, *"]),
    ("given twice", "include:", "endpoints:\n  log: {at: guest}\ninclude:", ["case.yaml:8:9: key 'at' is given in parts/last.fragment.yaml:8, too; keep one of the two, or make it a parameter of the fragment"]),
    ("an expectation", "include:", "expect:\n  - include: x.fragment.yaml\ninclude:", ["case.yaml:8:5: 'include' is no expectation; *"]),
    ("a step that is more", "include:", "steps:\n  - include: x.fragment.yaml\n    crash: {how: nmi}\ninclude:", ["case.yaml:8:5: a step has exactly one key, this one has 2: include, crash; *"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "expected"), [row[1:] for row in WRONG_CASE], ids=[row[0] for row in WRONG_CASE]
)
def test_an_error_of_the_testcase_stands_in_the_testcase(
    old: str, new: str, expected: list[str], tmp_path: Path
) -> None:
    assert old in CASE
    alike(problems(tmp_path, CASE.replace(old, new)), expected)


WRONG_FRAGMENT: list[tuple[str, str, str, list[str]]] = [
    ("unknown key in it", "needs:", "wants:", ["parts/last.fragment.yaml:2:1: unknown key 'wants' in a fragment; *", *("parts/last.fragment.yaml:10:18: ${how} names no parameter of this fragment; *", "case.yaml:7:50: the fragment has no parameter 'how'; *")]),
    ("a sentence is missing", "fragment: the kernel dies, and all that it says must arrive\n", "", ["parts/last.fragment.yaml:1:1: `fragment:` says what the fragment is for, in a sentence; write one"]),
    ("a parameter is renamed at one place", "within:", "whitin:", ["parts/last.fragment.yaml:10:36: ${within} names no parameter of this fragment; did you mean 'whitin'?"]),
    ("a key of a step is misspelt", "within: \"", "whitin: \"", ["parts/last.fragment.yaml:10:28: unknown key 'whitin'; did you mean 'within'?"]),
    ("a parameter is misspelt", '"${within}"', '"${whitin}"', ["parts/last.fragment.yaml:10:36: ${whitin} names no parameter of this fragment; did you mean 'within'?"]),
    ("an axis is not seen", '"${within}"', '"${nic}"', ["parts/last.fragment.yaml:10:36: ${nic} names no parameter of this fragment; parameters: how, device, within; an axis is handed in by the testcase, *"]),
    ("a parameter changes nothing", '"${within}"', "30", ["parts/last.fragment.yaml:5:3: parameter 'within' changes nothing; use ${within} somewhere, or remove it"]),
    ("needed and defaulted", "needs: [how]", "needs: [how, device]", ["parts/last.fragment.yaml:2:14: parameter 'device' is needed and has a default; keep one of the two"]),
    ("params is no mapping", "params:\n  device: n0\n  within: 30\n", "params: device\n", ["parts/last.fragment.yaml:3:9: `params` is a mapping of parameters to their defaults; *", *3 * ["* names no parameter of this fragment; *"]]),
    ("needs is no list", "needs: [how]", "needs: how", ["parts/last.fragment.yaml:2:8: `needs` is a list of parameters *", "case.yaml:7:50: *", "parts/last.fragment.yaml:10:18: *"]),
    ("a name", "  within: 30", "  Within: 30", ["parts/last.fragment.yaml:5:3: parameter name 'Within'; use a-z*", "parts/last.fragment.yaml:10:36: *"]),
    ("a default is wrong", "within: 30", "within: 30 s", ["parts/last.fragment.yaml:5:11: a number is expected here, not '30 s'; *"]),
    ("not YAML", "needs: [how]", "needs: [how", ["parts/last.fragment.yaml:3:7: not YAML: *"]),
    ("a tab", "  device: n0", "\tdevice: n0", ["parts/last.fragment.yaml:4:1: a tab cannot indent YAML; use spaces"]),
    ("empty", LAST, "", ["parts/last.fragment.yaml:1:1: the file is empty; *"]),
    ("a list", LAST, "- a\n", ["parts/last.fragment.yaml:1:1: a fragment is a mapping of keys to values; begin with `fragment:`"]),
    ("a duplicate key", "steps:", "  log: {at: host}\nsteps:", ["parts/last.fragment.yaml:9:3: key 'log' was given before, in line 8; keep one of the two"]),
    ("itself", "needs:", "include: {file: last.fragment.yaml, with: {how: nmi}}\nneeds:", ["parts/last.fragment.yaml:2:17: parts/last.fragment.yaml includes parts/last.fragment.yaml; remove one of these includes"]),
    ("a scalar for steps", LAST[LAST.index("steps:") : LAST.index("expect:")], "steps: 1\n", ["parts/last.fragment.yaml:5:3: *", "parts/last.fragment.yaml:2:9: *"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "expected"), [row[1:] for row in WRONG_FRAGMENT], ids=[row[0] for row in WRONG_FRAGMENT]
)
def test_an_error_of_a_fragment_stands_there_and_names_who_includes_it(
    old: str, new: str, expected: list[str], tmp_path: Path
) -> None:
    assert old in LAST
    found = problems(tmp_path, last=LAST.replace(old, new, 1))
    assert all(each.endswith(BY) == each.startswith("parts/") for each in found), found
    alike([each.removesuffix(BY) for each in found], expected)


def alike(found: list[str], expected: list[str]) -> None:
    """Each as expected, in any order; a `*` stands for anything."""
    assert len(found) == len(expected), found
    for pattern in expected:
        regex = ".*".join(map(re.escape, pattern.split("*")))
        assert any(re.fullmatch(regex, each) for each in found), (pattern, found)


def test_a_ring_of_fragments_is_named(tmp_path: Path) -> None:
    def link(to: str) -> str:
        return f"fragment: one of a ring of fragments\ninclude: {to}.fragment.yaml\n"

    (found,) = problems(
        tmp_path, CASE.replace("last", "a").replace(", with: {how: sysrq-c}", ""), a=link("b"), b=link("a")
    )
    assert found == (
        "parts/b.fragment.yaml:2:10: parts/a.fragment.yaml includes parts/b.fragment.yaml includes parts/a.fragment.yaml; "
        "remove one of these includes (included by parts/a.fragment.yaml:2:10)"
    )


def test_what_twenty_testcases_include_is_wrong_once(tmp_path: Path) -> None:
    write(tmp_path, last=LAST.replace("within:", "whitin:"))
    for number in range(20):
        (tmp_path / f"case{number}.yaml").write_text(CASE)
    with pytest.raises(ScenarioErrors) as caught:
        load_tree([tmp_path])
    assert [problem.at.line for problem in caught.value.problems] == [10]


def test_a_fragment_is_no_testcase(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path)
    assert [case.source for case in load_tree([tmp_path])] == [f"{file}:1"] * 2
    fragment = str(tmp_path / "parts/last.fragment.yaml")
    assert main(["lint", fragment]) == 2
    assert capsys.readouterr().err == f"{fragment}: a fragment is no testcase; name a testcase that includes it\n"


def test_too_much_is_refused_in_little_time(tmp_path: Path) -> None:
    doubling = "fragment: a bomb of fragments that include others\ninclude: [{0}.fragment.yaml, {0}.fragment.yaml]\n"
    bomb = {f"f{level}": doubling.replace("{0}", f"f{level + 1}") for level in range(7)}
    bomb["f7"] = "fragment: nothing is in it, many times\n"
    began = time.monotonic()
    found = problems(tmp_path, CASE.replace("last", "f0").replace(", with: {how: sysrq-c}", ""), **bomb)
    assert any("more than 100 fragments" in each for each in found)
    deep = {
        f"f{level}": f"fragment: fragments of fragments of them\ninclude: f{level + 1}.fragment.yaml\n"
        for level in range(20)
    }
    (found_deep,) = problems(tmp_path, CASE.replace("last", "f0").replace(", with: {how: sysrq-c}", ""), **deep)
    assert "fragments of fragments, more than 8 deep" in found_deep
    assert time.monotonic() - began < 5


ALIASES = "guest: &a0 {x: &a1 {x: &a2 {x: &a3 {x: *a0}}}}\n"


def test_a_knot_of_aliases_is_refused(tmp_path: Path) -> None:
    found = problems(
        tmp_path, CASE.replace('guest:\n  nics:\n    n0: {model: "${nic}"}\n', ALIASES), last=LAST + ALIASES
    )
    assert found


def test_whatever_a_fragment_holds_the_answer_is_a_list_of_problems(tmp_path: Path) -> None:
    rng = random.Random(7)
    for _ in range(300):
        text = list(LAST)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 9)] = rng.choice(
                ["{", "]", ": ", "&a ", "*a", "${", "\t", "- ", "how", "\n", "'"]
            )
        with suppress(ScenarioErrors):
            load(write(tmp_path, last="".join(text)))


def test_explain_says_which_fragments_a_case_takes() -> None:
    (plan,) = planned([ROOT / "testcases/crash/bug.yaml"], Options(results=Path(), wires="tap"))
    assert f"  includes {ROOT}/testcases/crash/last-words.fragment.yaml (how: bug)\n" in explain(plan)


def test_it_is_known_where_each_expectation_stands(tmp_path: Path) -> None:
    file = write(tmp_path, CASE + "expect:\n  - event: {name: GUEST_PANICKED}\n")
    plan, _ = planned([file], Options(results=Path(), wires="tap"))
    said = [next(iter(expect.model_dump(exclude_none=True))) for expect in plan.expect]
    assert sorted(said) == ["event", "parity"]
    for kind, place in zip(said, plan.expect_at, strict=True):
        path, _, line = place.rpartition(":")
        assert Path(path).read_text().splitlines()[int(line) - 1].startswith(f"  - {kind}:")


OF_THE_TESTCASE = {"name", "about", "params", "marks", "timeout"}


def test_a_fragment_may_say_whatever_is_not_of_the_testcase_alone() -> None:
    assert set(SECTIONS) == Scenario.model_fields.keys() - OF_THE_TESTCASE


FRAGMENTS = sorted((ROOT / "testcases").rglob("*.fragment.yaml"))


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_each_shipped_fragment_serves_two_testcases_and_more(path: Path) -> None:
    users = [file for file in (ROOT / "testcases").rglob("*.yaml") if re.search(rf"\b{path.name}\b", file.read_text())]
    assert len(users) >= 2, users
