"""Text for a terminal, a pipe or a log: as wide as the terminal, coloured only where there is one.

In: something that rich can draw. Out: lines. Rule: standard output decides; without a terminal, and with NO_COLOR set, nothing
but text comes out (https://no-color.org). What a guest printed goes through `clean`: it must not steer our terminal.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys

from rich.console import Console, RenderableType

PLAIN_WIDTH = 120  # columns where there is no terminal to ask

STYLES = {
    "PASS": "green",
    "KNOWN_BUG": "yellow",
    "INCONCLUSIVE": "yellow",
    "FAIL": "bold red",
    "ERROR": "bold magenta",
}
"""Every word of a verdict, from the best to the worst."""


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
_UNSEEN = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")


def clean(text: str) -> str:
    """Text without control characters: they become `\\xHH`. What turns the direction of writing, cannot be seen or cannot be
    encoded becomes `\\uHHHH`: a guest's line must look like what it is."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text.translate(_CONTROLS))


def page_width() -> int:
    """Columns of the terminal, PLAIN_WIDTH without one."""
    return shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else PLAIN_WIDTH


def render(what: RenderableType) -> list[str]:
    """Lines of text without trailing blanks."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    page = io.StringIO()
    console = Console(
        file=page,
        force_terminal=colour,
        color_system="standard" if colour else None,
        width=page_width(),
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(what, soft_wrap=False)
    return [line.rstrip() for line in page.getvalue().splitlines()]
