"""What the command line says of itself: versions, examples that parse, completion that a shell takes."""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from harness.cli import EPILOG, Exit, _forwarded, main, make_parser
from harness.run import Options

EXAMPLE = re.compile(r"^  (netpoll-harness .*?)(?:   .*)?$", re.MULTILINE)


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"netpoll-harness {importlib.metadata.version('netpoll-harness')}\n"


@pytest.mark.parametrize("name", subcommands())
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: netpoll-harness {name}")


@pytest.mark.parametrize("name", subcommands())
def test_every_command_has_examples_and_says_what_its_exit_codes_mean(name: str) -> None:
    said = subcommands()[name].format_help()
    assert f"examples:\n  netpoll-harness {name}" in said
    codes = {int(code) for code in re.findall(r"^  +(\d+)  \w", said.partition("exit codes:")[2], re.MULTILINE)}
    assert {0, 2} <= codes | ({2} if name == "doctor" else set())
    assert codes <= set(Exit)


def test_an_exit_code_is_in_the_documents_table() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/ci.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} >= set(Exit)


def test_examples_of_the_help_parse() -> None:
    texts = [EPILOG, *(parser.epilog or "" for parser in subcommands().values())]
    found = [example for text in texts for example in EXAMPLE.findall(text)]
    assert len(found) > 10
    for example in found:
        words = shlex.split(re.sub(r" > .*", "", example))[1:]
        _, rest = make_parser().parse_known_args(words)
        assert not rest or words[0] == "run", example


def test_bash_takes_the_completion_and_it_knows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = 'COMP_WORDS=(netpoll-harness comp); COMP_CWORD=1; f=$(complete -p netpoll-harness | sed "s/.*-F \\([^ ]*\\).*/\\1/"); $f; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert {"compare", "completion"} <= set(done.stdout.split()), done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_the_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "netpoll-harness" in capsys.readouterr().out


def test_no_option_that_is_handed_on_to_pytest_is_a_path_by_itself() -> None:
    """pytest takes the folder above all paths among its words as its root, and leaves its cache there."""
    words = [
        "run",
        "--kernel",
        "/k/bzImage",
        "--modules",
        "/m",
        "--results",
        "/r",
        "--qemu",
        "/q",
        "--nic",
        "igb",
        "--strict",
    ]
    args, _ = make_parser().parse_known_args(words)
    handed_on = _forwarded(args, Options(results=Path("/r")))
    assert {"--kernel=/k/bzImage", "--modules=/m", "--results=/r", "--qemu=/q", "--nic=igb"} <= set(handed_on)
    assert all(word.startswith("--") for word in handed_on)
