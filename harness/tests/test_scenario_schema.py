"""The JSON Schema of testcases, the tables of the docs made from it, and testcases to begin with."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from harness.authoring import FRAGMENT_SCHEMA, SCHEMA
from harness.cli import main
from harness.plan.compile import compile_plan
from harness.plan.nics import MODELS
from harness.scenario import reference, schema
from harness.scenario.load import is_testcase, load, load_tree
from harness.scenario.meanings import MEANINGS, UNLESS
from harness.scenario.model import Expect
from harness.scenario.new import KINDS, commented
from harness.tests.scenario_table import GOOD

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = sorted((ROOT / "testcases").rglob("*.yaml"))
FRAGMENTS = [path for path in WRITTEN if not is_testcase(path)]
SHIPPED = [*filter(is_testcase, WRITTEN), *sorted(Path(__file__).parent.glob("must_fail/*.yaml"))]
VALIDATOR = Draft202012Validator(schema.schema())
FRAGMENT = Draft202012Validator(schema.fragment_schema())
REFRESH = "stale: run `netpoll-harness schema --refresh` in the checkout"


def models() -> dict[str, dict[str, Any]]:
    made = schema.schema()
    return {
        "Scenario": made,
        "Fragment": schema.fragment_schema(),
        **{name: each for name, each in made["$defs"].items() if "properties" in each},
    }


@pytest.mark.parametrize("made", [schema.schema(), schema.fragment_schema()], ids=["testcase", "fragment"])
def test_the_schemas_are_some(made: schema.Schema) -> None:
    Draft202012Validator.check_schema(made)


def test_the_shipped_file_is_what_the_models_say() -> None:
    assert SCHEMA.read_text() == schema.text(schema.schema()), REFRESH
    assert FRAGMENT_SCHEMA.read_text() == schema.text(schema.fragment_schema()), REFRESH


def test_the_tables_of_the_docs_are_what_the_models_say() -> None:
    page = (ROOT / "docs/authoring.md").read_text()
    assert {found[2] for found in reference.BLOCK.finditer(page)} == set(reference.TABLES)
    assert page == reference.refreshed(page, ROOT), REFRESH


def test_every_key_has_its_sentence_and_every_sentence_its_key() -> None:
    without = [f"{name}.{key}" for name, each in models().items() for key, value in each["properties"].items() if not value.get("description")]  # fmt: skip
    assert without == [], "say in harness/scenario/meanings.py what these are"
    fields = {name: {key.rstrip("_") for key in each["properties"]} for name, each in models().items()}
    strange = [
        f"{name}.{key}"
        for name, keys in MEANINGS.items()
        for key in keys
        if key.rstrip("_") not in fields.get(name, ())
    ]
    assert strange == []
    assert set(UNLESS) == set(Expect.model_fields)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_testcase_fits(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(path.read_text()))] == []


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_every_shipped_fragment_fits_and_tells_editors_so(path: Path) -> None:
    assert [error.message for error in FRAGMENT.iter_errors(yaml.safe_load(path.read_text()))] == []
    first = path.read_text().partition("\n")[0]
    assert first == schema.COMMENT + os.path.relpath(FRAGMENT_SCHEMA, path.parent)


@pytest.mark.parametrize("path", [path for path in SHIPPED if "testcases" in path.parts], ids=lambda path: path.stem)
def test_every_shipped_testcase_tells_editors_of_the_schema(path: Path) -> None:
    first = path.read_text().partition("\n")[0]
    named = os.path.normpath(path.parent / first.removeprefix(schema.COMMENT))
    assert first.startswith(schema.COMMENT), f"begin {path} with {schema.COMMENT}{os.path.relpath(SCHEMA, path.parent)}"
    assert named == str(SCHEMA)


WRONG: dict[str, dict[str, Any]] = {
    "unknown-key": {"guests": {}},
    "two-keys-in-a-step": {"steps": [{"crash": {"how": "nmi"}, "wait": {"event": "RESET"}}]},
    "no-step": {"steps": []},
    "how": {"steps": [{"crash": {"how": "nicely"}}]},
    "model": {"guest": {"nics": {"n0": {"model": "e1000r"}}}},
    "range": {"guest": {"nics": {"n0": {"model": "e1000"}}, "smp": 99}},
    "text-for-a-number": {"timeout": "long"},
    "params": {"params": {"nic": "e1000"}},
    "missing": {"expect": [{"delivered": {"from": "sender"}}]},
    "include-of-nothing": {"include": {"with": {}}},
    "include-of-no-fragment": {"include": "other.yaml"},
    "two-waits": {"steps": [{"wait": {"event": "RESET", "sent": "sender"}}]},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_the_loader_refuses_by_its_shape_does_not_fit(change: dict[str, Any]) -> None:
    good = yaml.safe_load(GOOD)
    assert VALIDATOR.is_valid(good)
    assert not VALIDATOR.is_valid({**good, **change})


def test_what_a_fragment_says_need_not_be_said_again() -> None:
    include = {"file": "parts/last.fragment.yaml", "with": {"how": "nmi"}}
    about = {"about": "everything is in the fragment"}
    assert not VALIDATOR.is_valid(about)
    assert VALIDATOR.is_valid({**about, "include": include})
    assert VALIDATOR.is_valid({**about, "include": [include, "other.fragment.yaml"]})
    assert VALIDATOR.is_valid({**about, "steps": [{"include": include}]})


WRONG_FRAGMENT: dict[str, dict[str, Any]] = {
    "about": {"about": "a fragment has no such key"},
    "how": {"steps": [{"crash": {"how": "nicely"}}]},
    "no-sentence": {"fragment": "short"},
    "needs": {"needs": "how"},
    "matrix": {"matrix": {"nic": ["e1000"]}},
}


@pytest.mark.parametrize("change", WRONG_FRAGMENT.values(), ids=WRONG_FRAGMENT)
def test_what_is_refused_in_a_fragment_does_not_fit(change: dict[str, Any]) -> None:
    good = {
        "fragment": "what several have in common",
        "needs": ["size"],
        "steps": [{"send": {"from": "a", "count": 1, "size": "${size}"}}],
    }
    assert FRAGMENT.is_valid(good)
    assert not FRAGMENT.is_valid({**good, **change})


def test_the_value_of_an_axis_may_stand_for_any_single_value() -> None:
    good = yaml.safe_load(GOOD)
    changed = {
        **good,
        "matrix": {"how": ["nmi"], "many": [1, 2]},
        "timeout": "${many}",
        "steps": [{"crash": {"how": "${how}"}}],
    }
    assert [error.message for error in VALIDATOR.iter_errors(changed)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_new_testcases_are_clean_and_compile(kind: str, tmp_path: Path) -> None:
    for nic, model in MODELS.items():
        if KINDS[kind].cuts and not model.link:
            continue
        path = tmp_path / "testcases" / kind / f"{nic}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commented(kind, nic))
        assert VALIDATOR.is_valid(yaml.safe_load(path.read_text()))
    for loaded in load_tree([tmp_path / "testcases"]):
        assert compile_plan(loaded.scenario, loaded.source).stages


def test_the_command_writes_one_and_nothing_over_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "testcases/mine/first.yaml"
    assert main(["new", str(path), "--kind", "panic", "--nic", "igb"]) == 0
    assert f"netpoll-harness run {path}" in capsys.readouterr().out
    assert [case.case for case in load(path)] == ["mine/first[nic=igb]"]
    assert os.path.samefile(path.parent / path.read_text().partition("\n")[0].removeprefix(schema.COMMENT), SCHEMA)
    assert main(["new", str(path)]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nic", "e1000r"], "did you mean 'e1000'?"),
        (["--kind", "panics"], "did you mean 'panic'?"),
        (["--kind", "link-cut", "--nic", "tulip"], "does not show a cut link"),
    ],
    ids=["nic", "kind", "no-link"],
)
def test_a_wrong_choice_gets_a_suggestion(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", str(tmp_path / "x.yaml"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_at_a_terminal_it_asks(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "harness.cli", "new", "--kind", "panic"]
    process = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    os.close(theirs)
    os.write(ours, b"virtio-net\n\n")
    assert process.wait(60) == 0
    assert "e1000e" in os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "nic: [virtio-net]" in (tmp_path / "testcases/mine/panic.yaml").read_text()


def test_several_errors_at_once_each_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        commented("panic", "e1000e")
        .replace("[e1000e]", "[e1000r]")
        .replace("sysrq-c", "sysrq-d")
        .replace("parity", "paritty")
    )
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert main(["lint", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [("did you mean" in line, line.startswith(f"{path}:")) for line in lines] == [(True, True)] * 3, lines


def test_schema_prints_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == SCHEMA.read_text()
    assert main(["schema", "--where"]) == 0
    assert capsys.readouterr().out == f"{SCHEMA}\n"
