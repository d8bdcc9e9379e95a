"""A case's folder on disk: written by a run, read again by whoever judges or looks at it later.

In and out: `plan.json`, `versions.json`, `evidence.jsonl`, `console.log`, `case.pcapng`, `verdict.json`. Rule: a file
appears whole or not at all, except those that grow while the case runs; reading changes nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from harness.frozen import Frozen
from harness.judge.judge import judge
from harness.judge.model import Verdict
from harness.judge.records import Event
from harness.observe.events import read_evidence
from harness.plan.model import Plan

PLAN, VERSIONS, EVIDENCE, VERDICT = "plan.json", "versions.json", "evidence.jsonl", "verdict.json"
RUN = "run.json"  # beside the cases' folders

Model = TypeVar("Model", bound=Frozen)


class StoreError(Exception):
    """A folder is not what it was taken for; the message says what is missing and what to do."""


def folder_name(case: str) -> str:
    """A case's name with what a file system or a shell may dislike replaced."""
    return re.sub(r"[^A-Za-z0-9._=,-]+", "_", case).strip("_.") or "case"


def new_case(results: Path, plan: Plan, versions: Mapping[str, str]) -> Path:
    """A fresh folder below `results`, with plan.json and versions.json. A case that is there already is kept: the new one
    gets a number. Raises StoreError when it cannot be made."""
    try:
        folder = _fresh(results, folder_name(plan.case))
        write_text(folder / PLAN, plan.model_dump_json(indent=1, by_alias=True))
        write_text(folder / VERSIONS, json.dumps(dict(versions), indent=1))
    except OSError as error:
        raise StoreError(
            f"{error.filename or results}: {error.strerror}\n  -> name another folder: --results"
        ) from error
    return folder


def _fresh(results: Path, name: str) -> Path:
    results.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = results / (name if number == 1 else f"{name}.{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("count() ends never")


def write_text(path: Path, text: str) -> None:
    """Replace `path` in one step. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """verdict.json. Raises StoreError."""
    try:
        write_text(folder / VERDICT, verdict.model_dump_json(indent=1))
    except OSError as error:
        raise StoreError(f"{folder / VERDICT}: {error.strerror}") from error


def read_plan(folder: Path) -> Plan:
    """The plan of a case. Raises StoreError for a folder that is not a case's."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    if not (folder / PLAN).is_file():
        raise StoreError(f"{folder}: not a case's folder: {PLAN} is missing\n  -> name a folder below a run's results")
    return _read(folder / PLAN, Plan)


def read_case(folder: Path) -> tuple[Plan, list[Event]]:
    """Plan and events of a case. Raises StoreError for a folder that is not a case's, or damaged."""
    plan = read_plan(folder)
    try:
        return plan, list(read_evidence(folder / EVIDENCE))
    except FileNotFoundError as error:
        raise StoreError(f"{folder}: {EVIDENCE} is missing: the case was never run") from error
    except (OSError, ValueError) as error:
        raise StoreError(str(error)) from error


def read_verdict(folder: Path) -> Verdict:
    """The verdict written when the case ran. Raises StoreError."""
    if not (folder / VERDICT).is_file():
        raise StoreError(f"{folder}: {VERDICT} is missing\n  -> netpoll-harness judge {folder}")
    return _read(folder / VERDICT, Verdict)


def read_versions(folder: Path) -> dict[str, str]:
    """What the case ran on: kernel, qemu, accel and more. Raises StoreError."""
    try:
        return {str(key): str(value) for key, value in json.loads((folder / VERSIONS).read_bytes()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{folder / VERSIONS}: {error}") from error


def _read(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            f"{path}: {where + ': ' if where else ''}{first['msg']}\n  -> damaged, or written by another version"
        ) from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def rejudge(folder: Path) -> Verdict:
    """The verdict again, from what is on disk; nothing is written. Raises StoreError."""
    return judge(*read_case(folder))


def cases(folder: Path) -> list[Path]:
    """The case folders of a results folder, by name; of a case's folder: itself. Raises StoreError where there are none."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    try:
        found = [folder] if (folder / PLAN).is_file() else sorted(path.parent for path in folder.glob(f"*/{PLAN}"))
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
    if not found:
        raise StoreError(f"{folder}: neither a case's folder nor one of results: there is no {PLAN} in or below it")
    return found


def verdicts(results: Path) -> Iterator[Verdict]:
    """Every verdict below `results`; none where nothing was run. Raises StoreError for a damaged one."""
    for path in sorted(results.glob(f"*/{VERDICT}")):
        yield _read(path, Verdict)


def environment(results: Path, folders: Sequence[Path]) -> dict[str, str]:
    """What a run ran on, for a report: when it began, and every version that its cases name."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        with suppress(StoreError):
            for name, value in read_versions(folder).items():
                found.setdefault(name, []).append(value)
    told = {name: ", ".join(dict.fromkeys(values)) for name, values in found.items()}
    return {"started": _started(folders), **_run_facts(results), **told}


def _started(folders: Sequence[Path]) -> str:
    """The earliest `run start`, UTC; empty where no case has one."""
    walls = []
    for folder in folders:
        with suppress(OSError, ValueError, KeyError, TypeError), (folder / EVIDENCE).open("rb") as file:
            walls.append(str(json.loads(file.readline())["wall"]))
    return min(walls, default="")[:19].replace("T", " ") + (" UTC" if walls else "")


def write_run(results: Path, facts: Mapping[str, str]) -> None:
    """run.json: what was asked for, on which machine. Raises StoreError."""
    try:
        write_text(results / RUN, json.dumps(dict(facts), indent=1))
    except OSError as error:
        raise StoreError(f"{results / RUN}: {error.strerror}") from error


def _run_facts(results: Path) -> dict[str, str]:
    with suppress(OSError, ValueError, AttributeError):
        return {str(key): str(value) for key, value in json.loads((results / RUN).read_bytes()).items()}
    return {}
