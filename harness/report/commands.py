"""Commands for who reads runs: `netpoll-harness judge`, `report` and `compare`.

In: parsed arguments. Out: text, pages, and an exit code. Rule: evidence is read, never changed; the only files written are the pages asked
for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.judge.model import Verdict
from harness.report import compare, html, store, tap, terminal

FORMATS = ("text", *tap.DIALECTS)
HELD, FAILED, TESTBED = 0, 1, 3  # exit codes, as in docs/ci.md

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def add_parsers(add: Add) -> None:
    """Adds the commands; `add` takes name, function and what it is about."""
    again = add("judge", judge, "judge saved evidence again")
    again.add_argument("folder", type=Path, nargs="+", help="a case's folder, or a results folder")
    again.add_argument("--format", choices=FORMATS, default="text", help="of what is printed (default: text)")
    about = "write report.html: every case with its timeline, one file for a browser"
    drawn = add("report", report, about)
    drawn.add_argument(
        "results", type=Path, metavar="RUN", help="results folder of a run; the report is written into it"
    )
    about = "say which verdicts changed between two runs; exit code 1 if one got worse"
    both = add("compare", compared, about)
    both.add_argument("first", type=Path, metavar="RUN_A", help="results folder of the earlier run")
    both.add_argument("second", type=Path, metavar="RUN_B", help="results folder of the later one")
    both.add_argument("--html", type=Path, metavar="FILE", help="write a page, too")
    both.add_argument("--again", action="store_true", help="judge both again, with the checks of today")


def judge(args: argparse.Namespace) -> int:
    """The same verdicts again, from what is on disk. Raises StoreError."""
    found = [(store.rejudge(case), case) for folder in args.folder for case in store.cases(folder)]
    show([verdict for verdict, _ in found], [case for _, case in found], args.format)
    words = {verdict.word for verdict, _ in found}
    return FAILED if "FAIL" in words else TESTBED if "ERROR" in words else HELD


def show(verdicts: Sequence[Verdict], folders: Sequence[Path], form: str) -> None:
    """Print verdicts in one of FORMATS."""
    if form in tap.DIALECTS:
        lines = list(tap.lines(verdicts, tap.DIALECTS[form]))
    else:
        both = zip(verdicts, folders, strict=True)
        lines = [line for verdict, folder in both for line in terminal.verdict_lines(verdict, folder)]
    print("\n".join(lines))


def report(args: argparse.Namespace) -> int:
    """Raises StoreError."""
    print(f"report: {html.write(args.results)}")
    return HELD


def compared(args: argparse.Namespace) -> int:
    """Raises StoreError."""
    found = compare.compare(args.first, args.second, store.rejudge if args.again else store.read_verdict)
    print("\n".join(compare.text(found)))
    if args.html:
        try:
            store.write_text(args.html, html.comparison(found))
        except OSError as error:
            raise store.StoreError(f"{args.html}: {error.strerror}") from error
        print(f"page: {args.html}")
    return FAILED if found.group("worse") else HELD
