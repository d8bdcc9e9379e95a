"""The commands that README and docs show are commands that there are, with options that they have."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from harness.cli import make_parser
from harness.scenario import schema

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^ {4,}(?:\$ )?(netpoll-harness .*)$|`(netpoll-harness [^`]*)`", re.MULTILINE)
LINK = re.compile(r"\]\((?!http)([^)#]+)\)")


def commands() -> list[tuple[str, str]]:
    return [(page.name, one or two) for page in PAGES for one, two in COMMAND.findall(page.read_text())]


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_of_the_docs_parses(page: str, command: str) -> None:
    words = shlex.split(re.sub(r"\s+#.*", "", command))[1:]
    if words == [] or words[0] in ("run|lint|list|explain|judge|images|bench", "..."):
        return
    if {"--help", "--version"} & set(words):  # they end the process, well or not
        with pytest.raises(SystemExit, match=r"^0$"):
            make_parser().parse_known_args(words)
        return
    _, rest = make_parser().parse_known_args(words)
    assert words[0] == "run" or not rest, f"{page}: {command}: {rest} are no options"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 75
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= set(LINK.findall(text))


YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
BLOCKS = [(page.name, text) for page in PAGES for text in YAML.findall(page.read_text())]


@pytest.mark.parametrize(("page", "text"), BLOCKS, ids=[f"{page}-{number}" for number, (page, _) in enumerate(BLOCKS)])
def test_yaml_of_the_docs_fits_the_schema(page: str, text: str) -> None:
    """A whole testcase, a fragment, or a part of one: then it could be a fragment."""
    data = yaml.safe_load(text)
    made = schema.schema() if "about" in data else schema.fragment_schema()
    whole = data if data.keys() & {"about", "fragment"} else {"fragment": f"a part shown on {page}", **data}
    assert [error.message for error in Draft202012Validator(made).iter_errors(whole)] == []
