"""Commands for who writes testcases: `netpoll-harness new` and `netpoll-harness schema`.

In: parsed arguments, and answers where somebody sits at a terminal. Out: files, and words on what to do next. Rule: nothing that exists
is overwritten, except what `schema --refresh` makes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from harness.plan.nics import MODELS
from harness.scenario import reference, schema
from harness.scenario.new import KINDS, NoSuchChoice, commented

SCHEMA = Path(schema.__file__).parent / schema.FILE
FRAGMENT_SCHEMA = SCHEMA.with_name(schema.FRAGMENT_FILE)
PAGE = Path("docs/authoring.md")


class AuthoringError(Exception):
    """What was asked for cannot be written; the message says why, and what can."""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `new` and `schema`."""
    made = commands.add_parser(
        "new",
        help="write a commented testcase to begin with",
        description="Write a commented testcase to begin with. At a terminal it asks for what is not given.",
    )
    made.add_argument("file", type=Path, nargs="?", help="the testcase to write, best below a folder called testcases")
    made.add_argument("--kind", help=f"what it is about: {', '.join(KINDS)}")
    made.add_argument("--nic", help="a NIC model (default: e1000e)")
    made.set_defaults(command=new)
    shown = commands.add_parser(
        "schema",
        help="print the JSON Schema of testcases, for editors",
        description="Print the JSON Schema of testcases. Editors take it from a first line `# yaml-language-server: $schema=FILE`.",
    )
    shown.add_argument("--fragment", action="store_true", help="of fragments instead of testcases")
    shown.add_argument("--where", action="store_true", help="print the path of the shipped file instead")
    shown.add_argument(
        "--refresh", action="store_true", help="in a checkout: write the file and docs/authoring.md anew"
    )
    shown.set_defaults(command=show_schema)


def show_schema(args: argparse.Namespace) -> int:
    """`netpoll-harness schema`."""
    if args.refresh:
        SCHEMA.write_text(schema.text(schema.schema()))
        FRAGMENT_SCHEMA.write_text(schema.text(schema.fragment_schema()))
        PAGE.write_text(reference.refreshed(PAGE.read_text(), PAGE.resolve().parents[1]))
        print(f"{SCHEMA}\n{FRAGMENT_SCHEMA}\n{PAGE}")
        return 0
    made = schema.fragment_schema() if args.fragment else schema.schema()
    path = FRAGMENT_SCHEMA if args.fragment else SCHEMA
    print(path if args.where else schema.text(made), end="\n" if args.where else "")
    return 0


def new(args: argparse.Namespace) -> int:
    """`netpoll-harness new`. Raises AuthoringError."""
    kind = args.kind or _asked("What is it about?", {name: each.about for name, each in KINDS.items()}, "panic")
    nic = args.nic or _asked("Which NIC?", {name: model.note for name, model in MODELS.items()}, "e1000e")
    file = args.file or Path(_asked("Which file?", {}, f"testcases/mine/{kind}.yaml"))
    try:
        text = commented(kind, nic, os.path.relpath(SCHEMA, file.parent))
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x") as out:
            out.write(text)
    except NoSuchChoice as error:
        raise AuthoringError(str(error)) from error
    except FileExistsError as error:
        raise AuthoringError(f"{file} is there already\n  -> name another file") from error
    except OSError as error:
        raise AuthoringError(f"{error.filename or file}: {error.strerror}") from error
    print(f"{file}\nnext: netpoll-harness lint {file}\n      netpoll-harness run {file}")
    return 0


def _asked(question: str, choices: dict[str, str], default: str) -> str:
    """An answer from the terminal; the default where nobody sits there, or just presses Enter."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return default
    for name, about in choices.items():
        print(f"  {name:20} {about}")
    return input(f"{question} [{default}] ").strip() or default
