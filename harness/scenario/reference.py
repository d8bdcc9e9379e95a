"""The parts of docs/authoring.md that are not typed: tables that list every key, made from the schema, and testcases as they are.

In: the schema, shipped testcases, and a page with marked places. Out: the page with these places as they are to be. Rule: between the marks
stands only what was made here; all other words of the page are its author's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import dropwhile
from pathlib import Path as FilePath
from typing import Any

from harness.scenario.meanings import MEANINGS, UNLESS
from harness.scenario.model import WAITS
from harness.scenario.schema import Schema, fragment_schema, schema

BLOCK = re.compile(r"(<!-- keys: (\w+)[^\n]*-->\n).*?(<!-- end of keys -->)", re.DOTALL)
FILE = re.compile(r"(<!-- file: (\S+)[^\n]*-->\n).*?(<!-- end of file -->)", re.DOTALL)
MARK = "<!-- keys: {} (made by `netpoll-harness schema --refresh`; the words are in harness/scenario/meanings.py) -->"
KEYS = "| key | value | meaning |\n|---|---|---|"
MOST_WORDS = 16  # of a choice that is written out


def refreshed(page: str, root: FilePath) -> str:
    """The page with every marked place made anew; files are below `root`. Raises KeyError for a mark that names no table, OSError for
    one that names no file."""
    made = schema()
    page = BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]](made)}\n{found[3]}", page)
    return FILE.sub(lambda found: f"{found[1]}{_shown((root / found[2]).read_text())}\n{found[3]}", page)


def _shown(text: str) -> str:
    """A YAML file without the comments above it: the first line is for editors, and the page says the rest in its own words."""
    lines = list(dropwhile(lambda line: line.startswith("#"), text.splitlines()))
    return "\n".join(["```yaml", *lines, "```"])


def _table(*models: str) -> Callable[[Schema], str]:
    """One table over the keys of the document itself ("") or of the named models, with what leads to them before a dot."""

    def make(made: Schema) -> str:
        rows = [row for each in models for row in _keys(made, *each.partition(":")[::2])]
        return "\n".join([KEYS, *rows])

    return make


def _keys(made: Schema, name: str, before: str) -> Iterator[str]:
    model = made["$defs"][name] if name else made
    here = model.get("anyOf", [{}])[0].get("required", ())  # unless a fragment says it
    for key, value in model["properties"].items():
        need = "; required" if key in (*model.get("required", ()), *here) else ""
        yield f"| `{before}{key}` | {_value(made, value)}{need} | {_cell(value['description'])} |"


def _choices(name: str) -> Callable[[Schema], str]:
    """A table of mappings with one key each: steps."""

    def make(made: Schema) -> str:
        rows = []
        for key, value in made["$defs"][name]["properties"].items():
            rows.append(f"| **`{key}`** | | {_cell(value['description'])} |")
            if "$ref" in value:
                rows += _keys(made, value["$ref"].rpartition("/")[2], "")
        return "\n".join([KEYS.replace("| key", "| step and its keys"), *rows])

    return make


def _waits(made: Schema) -> str:
    rows = []
    for model in WAITS.values():
        properties = made["$defs"][model.__name__]["properties"]
        keys = [key for key in properties if key != "within"]
        until = " ".join(properties[key]["description"] for key in keys)
        named = ", ".join(f"`{key}`{_short(made, properties[key])}" for key in keys)
        rows.append(f"| {named} | {_cell(until)} | {properties['within']['default']:g} |")
    return "\n".join(["| wait | until | `within`, in seconds |", "|---|---|---|", *rows])


def _expectations(made: Schema) -> str:
    rows = []
    for key, value in made["$defs"]["Expect"]["properties"].items():
        holds = value["description"].partition(". Not reached unless ")[0]
        unless = f". *Not reached unless* {_cell(UNLESS[key])}" if UNLESS[key] else ""
        rows.append(f"| **`{key}`** | | {_cell(holds)}{unless} |")
        rows += _keys(made, value["$ref"].rpartition("/")[2], "")
    return "\n".join([KEYS.replace("| key", "| expectation and its keys").replace("meaning", "holds if"), *rows])


def _fragment(_made: Schema) -> str:
    """The keys that only a fragment has."""
    made = fragment_schema()
    own = {key: made["properties"][key] for key in MEANINGS["Fragment"]}
    return "\n".join([KEYS, *_keys({**made, "properties": own}, "", "")])


TABLES: dict[str, Callable[[Schema], str]] = {
    "file": _table(""),
    "fragment": _fragment,
    "guest": _table("Guest", "Nic:nics.NAME.", "Bond:bonds.NAME.", "GuestSsh:ssh."),
    "endpoint": _table("Endpoint"),
    "dump": _table("Dump"),
    "debugger": _table("Debugger"),
    "steps": _choices("Step"),
    "after": _table("Burst:after."),
    "waits": _waits,
    "expect": _expectations,
    "known_bugs": _table("KnownBug"),
    "allow": _table("Allow"),
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _short(made: Schema, value: Schema) -> str:
    """` (1)` for a default, ` (down or up)` for a choice."""
    words = _value(made, value)
    return f" ({words})" if "`" in words else ""


def _value(made: Schema, value: Schema) -> str:
    """What can stand there, and what is taken if nothing does."""
    kind = _kind(made, _first(value))
    default = value.get("default", ...)
    if default in (..., {}, []):
        return kind
    shown = f"`{_plain(default)}`"
    return kind.replace(shown, f"{shown} (default)", 1) if shown in kind else f"{kind}; {shown} if left out"


def _first(value: Schema) -> Schema:
    """Without the value of an axis, which can stand anywhere."""
    kinds = [kind for kind in value.get("anyOf", []) if kind != {"$ref": "#/$defs/Axis"}]
    return _first(kinds[0]) if len(kinds) == 1 else value


def _plain(default: Any) -> str:
    return (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def _kind(made: Schema, value: Schema) -> str:
    if words := value.get("enum"):
        return ", ".join(f"`{word}`" for word in words) if len(words) <= MOST_WORDS else "a word of those below"
    if value.get("$ref", "").endswith("/Include"):
        return "path, or `{file: PATH, with: {parameter: value}}`"
    if "const" in value:
        return f"`{value['const']}`"
    if "anyOf" in value:
        return " or ".join(
            dict.fromkeys(_kind(made, _first(kind)) for kind in value["anyOf"] if "Axis" not in str(kind))
        )
    words = KINDS.get(value.get("type", ""))
    return words(made, value) if words else "mapping"


def _number(word: str) -> Callable[[Schema, Schema], str]:
    def words(_made: Schema, value: Schema) -> str:
        low = value.get("minimum", value.get("exclusiveMinimum"))
        over = "over " if "exclusiveMinimum" in value else ""
        high = value.get("maximum")
        if low is None or high is None:
            return word if low is None else f"{word}, {over}{low}{'' if over else ' or more'}"
        return f"{word}, {over}{low} to {high}"

    return words


def _list(made: Schema, value: Schema) -> str:
    if "prefixItems" in value:
        return f"list of {len(value['prefixItems'])}"
    item = _kind(made, _first(value["items"]))
    return "list" if item == "mapping" else f"list of {item}"


KINDS: dict[str, Callable[[Schema, Schema], str]] = {
    "integer": _number("whole number"),
    "number": _number("number"),
    "boolean": lambda _made, _value: "`true`, `false`",
    "string": lambda _made, value: "name" if "{0,14}" in value.get("pattern", "") else "text",
    "array": _list,
    "object": lambda _made, _value: "mapping",
}
