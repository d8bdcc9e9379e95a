"""The files for CI systems: right by actionlint and by the schemas of GitHub and GitLab, and saying what README says."""

from __future__ import annotations

import configparser
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
GITLAB = ROOT / ".gitlab-ci.yml"
BESIDE = Path(sys.executable).parent  # where the `dev` extra puts programs
HAS_ACTIONLINT = platform.machine() == "x86_64" and sys.platform == "linux"

actionlint = pytest.mark.skipif(not HAS_ACTIONLINT, reason="actionlint comes as a wheel for x86_64 Linux alone")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


@actionlint
def test_actionlint_finds_nothing() -> None:
    done = run(BESIDE / "actionlint", "-no-color", WORKFLOW)
    assert (done.returncode, done.stdout) == (0, "")


PLANTED = {
    "runner": ("runs-on: ubuntu-latest", "runs-on: ubuntu-lates", "label"),
    "expression": ("github.workspace", "github.workplace", "workplace"),
    "key": ("timeout-minutes: 90\n", "timeout-minute: 90\n", "timeout-minute"),
    "old-action": ("actions/checkout@v6", "actions/checkout@v2", "checkout@v2"),
}


@actionlint
@pytest.mark.parametrize(("old", "new", "named"), PLANTED.values(), ids=PLANTED)
def test_actionlint_finds_what_was_planted(old: str, new: str, named: str, tmp_path: Path) -> None:
    text = WORKFLOW.read_text()
    assert old in text
    file = tmp_path / "ci.yml"
    file.write_text(text.replace(old, new))
    done = run(BESIDE / "actionlint", "-no-color", file)
    assert done.returncode == 1
    assert named in done.stdout


@pytest.mark.parametrize(
    ("schema", "file", "mistake"),
    [
        ("vendor.github-workflows", WORKFLOW, ("runs-on:", "run-on:")),
        ("vendor.gitlab-ci", GITLAB, ("script:", "scripts:")),
    ],
    ids=["github", "gitlab"],
)
def test_a_file_fits_the_schema_of_its_system(
    schema: str, file: Path, mistake: tuple[str, str], tmp_path: Path
) -> None:
    check: list[str | Path] = [BESIDE / "check-jsonschema", "--builtin-schema", schema]
    done = run(*check, file)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / file.name
    wrong.write_text(file.read_text().replace(*mistake))
    assert run(*check, wrong).returncode == 1


def test_the_workflow_runs_the_gate_and_gitlab_readmes_command() -> None:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["test"]["steps"]
    assert "bash .ci/run" in [step.get("run") for step in steps]
    job = yaml.safe_load(GITLAB.read_text())["test"]
    said = " && ".join([job["before_script"][-1], *job["script"]])
    assert said.removesuffix(" -- --junitxml results.xml") in (ROOT / "README.md").read_text()


def test_tox_lets_through_what_annotations_need() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert {"GITHUB_ACTIONS", "CI"} <= set(tox["testenv"]["pass_env"].split())


def test_every_tox_environment_is_documented() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    page = (ROOT / "docs/ci.md").read_text()
    names = [section.partition(":")[2] for section in tox.sections() if section.startswith("testenv:")]
    assert [name for name in names if f"`{name}`" not in page] == []
