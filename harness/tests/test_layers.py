"""The rules of who may import whom, held by reading every import in the tree (docs/architecture.md)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IO_MODULES = {
    "asyncio",
    "ctypes",
    "fcntl",
    "mmap",
    "os",
    "pathlib",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "random",
}


def modules(package: str) -> list[Path]:
    return [path for path in sorted((ROOT / package).rglob("*.py")) if "tests" not in path.parts]


def imports(path: Path) -> Iterator[str]:
    """Every module that `path` imports at run time, with its full name, wherever the import stands."""
    tree = ast.parse(path.read_text(), str(path))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_guest_imports_the_standard_library_and_guest_only() -> None:
    for path in modules("guest"):
        for name in imports(path):
            assert under(name, "guest", *sys.stdlib_module_names, "__future__"), f"{path} imports {name}"


def test_images_treats_guest_as_files_and_knows_no_harness() -> None:
    for path in modules("images"):
        for name in imports(path):
            assert not under(name, "guest", "harness"), f"{path} imports {name}"


@pytest.mark.parametrize("package", ["judge", "plan", "scenario"])
def test_deciding_and_judging_know_no_testbed(package: str) -> None:
    for path in modules(f"harness/{package}"):
        for name in imports(path):
            assert not under(
                name, "harness.testbed", "harness.inject", "harness.report", "images", "qemu", "pyroute2"
            ), f"{path} imports {name}"


def test_the_judge_does_no_io_and_takes_its_clock_as_an_argument() -> None:
    for path in modules("harness/judge"):
        for name in imports(path):
            assert not under(name, *IO_MODULES), f"{path} imports {name}"


# guest/netpoll, from the ground up: a layer may import what stands before it, and itself.
STACK = [
    ["wire", "layout"],
    ["skbuff"],
    ["netdevice", "context", "napi"],
    ["drivers", "bonding", "middleware", "core"],
    ["clients"],
]


def layer_of(name: str) -> int | None:
    part = name.removeprefix("guest.netpoll").lstrip(".").split(".")[0]
    return next((number for number, layer in enumerate(STACK) if part in layer), None)


def test_the_stack_stands_on_its_own_layers() -> None:
    for path in modules("guest/netpoll"):
        mine = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if mine is None:
            continue
        for name in imports(path):
            theirs = layer_of(name) if under(name, "guest.netpoll") else None
            assert theirs is None or theirs <= mine, f"{path} imports {name}, which stands above it"


@pytest.mark.parametrize("lower", ["drivers", "bonding", "middleware"])
def test_siblings_of_the_stack_do_not_know_each_other(lower: str) -> None:
    siblings = {"drivers", "bonding", "middleware", "core"} - {lower}
    for path in modules("guest/netpoll"):
        if path.relative_to(ROOT / "guest/netpoll").parts[0].removesuffix(".py") != lower:
            continue
        for name in imports(path):
            assert not under(name, *(f"guest.netpoll.{sibling}" for sibling in siblings)), f"{path} imports {name}"


def test_conduct_is_joined_to_judge_in_run_alone() -> None:
    for path in modules("harness"):
        if path.name in ("run.py", "cli.py", "pytest_plugin.py") or {"report", "judge", "mutants"} & set(path.parts):
            continue
        if (
            path.parent.name == "api" and path.name != "session.py"
        ):  # a third door; the process of the case is session.py
            continue
        for name in imports(path):
            assert not under(name, "harness.judge"), f"{path} imports {name}"
