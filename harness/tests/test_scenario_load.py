"""Files, folders and names; and that no file, however broken or hostile, does more than give a list of problems."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scenario.document import MAX_BYTES, read_document
from harness.scenario.errors import ScenarioErrors
from harness.scenario.lint import lint
from harness.scenario.load import load, load_tree
from harness.tests.scenario_table import GOOD


def tree(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(GOOD)
    return root


def problems(paths: Sequence[Path]) -> list[str]:
    with pytest.raises(ScenarioErrors) as caught:
        load_tree(paths)
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("file", "given_root", "name"),
    [
        ("testcases/send/out.yaml", None, "send/out"),
        ("testcases/send/deep/out.yaml", None, "send/deep/out"),
        ("elsewhere/send/out.yaml", None, "out"),
        ("elsewhere/send/out.yaml", "elsewhere", "send/out"),
        ("a/testcases/send/out.yml", "a", "send/out"),
    ],
)
def test_a_name_is_the_path_below_the_root(tmp_path: Path, file: str, given_root: str | None, name: str) -> None:
    tree(tmp_path, file)
    root = tmp_path / given_root if given_root else None
    assert {scenario.name for scenario in load(tmp_path / file, root=root)} == {name}


def test_a_name_may_be_given_if_it_is_the_end_of_the_path(tmp_path: Path) -> None:
    file = tree(tmp_path, "my/send/out.yaml") / "my/send/out.yaml"
    file.write_text("name: send/out\n" + GOOD)
    assert load(file)[0].name == "send/out"
    file.write_text("name: end/out\n" + GOOD)
    assert problems([file]) == [
        f"{file}:1:7: name 'end/out' does not agree with the path of the file; write 'out', or leave it out"
    ]


def test_a_file_name_that_is_no_name_is_refused(tmp_path: Path) -> None:
    file = tree(tmp_path, "My Case.yaml") / "My Case.yaml"
    assert problems([file]) == [
        f"{file}:1:1: 'My Case' cannot be used here; use a-z, 0-9, _ . / and -, a letter or digit first"
    ]


def test_a_folder_is_loaded_in_alphabetical_order_and_each_file_once(tmp_path: Path) -> None:
    root = tree(tmp_path, "b/two.yaml", "a/one.yml", ".git/no.yaml", "a/.hidden.yaml", "a/notes.txt")
    found = load_tree([root, root / "b" / "two.yaml", root / "a"])
    assert [loaded.scenario.case for loaded in found] == [
        "a/one[nic=e1000]",
        "a/one[nic=virtio-net]",
        "b/two[nic=e1000]",
        "b/two[nic=virtio-net]",
    ]
    assert found[2].source == f"{root}/b/two.yaml:1"


def test_the_source_is_the_line_where_the_testcase_begins(tmp_path: Path) -> None:
    file = tree(tmp_path, "one.yaml") / "one.yaml"
    file.write_text("# a comment\n\n" + GOOD)
    assert load_tree([file])[0].source == f"{file}:3"


def test_two_files_cannot_have_one_name(tmp_path: Path) -> None:
    root = tree(tmp_path, "x/one.yaml", "y/one.yaml")
    assert problems([root / "x", root / "y"]) == [
        f"{root}/y/one.yaml:1:1: testcase 'one' is in {root}/x/one.yaml too; rename one of them"
    ]


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.yaml", "b.yaml", "c.yaml")
    (root / "a.yaml").write_text(GOOD.replace("expect:", "expet:"))
    (root / "c.yaml").write_bytes(b"")
    (root / "empty").mkdir()
    assert problems([root, root / "nowhere.yaml", root / "empty"]) == [
        f"{root}/a.yaml:1:1: key 'expect' is missing; add it",
        f"{root}/a.yaml:22:1: unknown key 'expet'; did you mean 'expect'?",
        f"{root}/c.yaml:1:1: the file is empty; write a testcase: docs/authoring.md has an example",
        f"{root}/empty: no testcase in this folder; name files *.yaml",
        f"{root}/nowhere.yaml: cannot be read: No such file or directory; give a file or folder of testcases",
    ]


def test_kernels_are_checked_only_against_names_that_are_given(tmp_path: Path) -> None:
    file = tree(tmp_path, "one.yaml") / "one.yaml"
    assert lint([file])[1] == []
    assert lint([file], ["debian-6.12"])[1] == [f"{file}:5:3: unknown kernel 'debian-6.1'; did you mean 'debian-6.12'?"]


def test_an_nmi_that_is_ignored_crashes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    off = GOOD.replace("guest:\n", "guest:\n  sysctl: {kernel.unknown_nmi_panic: 0}\n")
    file.write_text(off.replace("how: sysrq-c", "how: nmi"))
    assert problems([file]) == [
        f"{file}:5:38: kernel.unknown_nmi_panic is 0, so nmi crashes nothing; remove it: the plan sets it to 1"
    ]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
)

HOSTILE = [
    ("latin-1", b"about: caf\xe9\n", "1:11: byte 0xe9 is not UTF-8; save the file as UTF-8"),
    ("second line", b"about: x\nb: \xff\n", "2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
    ("utf-16", "about: x\n".encode("utf-16"), "1:1: byte 0xff is not UTF-8; save the file as UTF-8"),
    ("nul", b"about: a\n x\0y\n", "2:3: character 0x0000 is not allowed in YAML; remove it, or write it as an escape"),
    ("only comments", b"# nothing\n", "1:1: the file is empty; write a testcase"),
    ("only a marker", b"---\n", "2:1: a testcase is a mapping of keys to values; begin with `about:`"),
    ("a list", b"- about: x\n", "1:1: a testcase is a mapping of keys to values; begin with `about:`"),
    ("a word", b"about\n", "1:1: a testcase is a mapping of keys to values; begin with `about:`"),
    ("billion laughs", BOMB.encode(), "more than 20000 values once aliases are written out; remove aliases of aliases"),
    ("deep", b"a: " + b"[" * 40 + b"]" * 40, "nested deeper than 24 levels; a testcase needs no more than six"),
    ("very deep", b"a: " + b"[" * 90_000, "nested deeper than 24 levels; a testcase needs no more than six"),
    ("anchor in itself", b"a: &a [*a]\n", "an alias inside its own anchor has no end; write the value out"),
    ("large", b"#" * (MAX_BYTES + 1), "262145 bytes is no testcase; keep it under 262144 bytes"),
    (
        "long number",
        b"about: " + b"9" * 9000,
        "1:8: a number of 9000 digits; nothing in a testcase is counted that far",
    ),
    ("base 60 beyond floats", b"about: " + b"1:" * 200 + b"1.0", "1.0 as a value of type float, in base 60; write"),
    ("base 60 for minutes", b"about: " + b"1:" * 100_000 + b"1", ":1 as a value of type int, in base 60; write"),
    ("base 60 as a key", b"1" + b":1" * 300 + b".0: x", "1.0 as a value of type float; write"),
]


@pytest.mark.parametrize(("raw", "said"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile_files_are_refused_quickly(tmp_path: Path, raw: bytes, said: str) -> None:
    file = tmp_path / "case.yaml"
    file.write_bytes(raw)
    began = time.process_time()  # of this process: others may be busy
    _, found = lint([file])
    assert time.process_time() - began < 5
    assert any(said in problem for problem in found), found


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "case.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert len(load(file)) == 2


def survives(text: bytes) -> None:
    """Either a document or problems; anything else is a defect."""
    with contextlib.suppress(ScenarioErrors):
        read_document("case.yaml", text)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(deadline=None)
def test_no_bytes_bring_the_reader_down(raw: bytes) -> None:
    survives(raw)


WORDS = [
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "&a ",
    "*a",
    "!!int ",
    "!x ",
    "<<: ",
    "~",
    "on",
    "6.10",
    "0x1",
    "1:2",
    "\n",
    "\t",
]


@pytest.mark.parametrize("seed", range(4))
def test_no_spoilt_testcase_brings_the_loader_down(tmp_path: Path, seed: int) -> None:
    """Random cuts and insertions in a good testcase; the seed is in the test's name."""
    dice = random.Random(seed)
    file = tmp_path / "case.yaml"
    for _ in range(150):
        text = GOOD
        for _ in range(dice.randint(1, 4)):
            at, until = sorted(dice.randrange(len(text)) for _ in range(2))
            text = text[:at] + dice.choice(WORDS) + text[min(until, at + dice.randint(0, 12)) :]
        file.write_text(text)
        lint([file], ["debian-6.1"])
