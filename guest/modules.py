"""Kernel modules loaded anew with parameters: what a testcase's `modules` asks for, before any NIC is plugged in.

In: a module's name and its parameters. Out: the module loaded with them, or RuntimeError with the reason. Rule: nothing is taken
silently: the kernel loads a module with a parameter that it does not have and only logs it, so modinfo(8) is asked first.
"""

from __future__ import annotations

import difflib
import subprocess
from collections.abc import Mapping
from pathlib import Path

OURS = frozenset(  # the agent's own channel; without it nobody could be told anything
    ["virtio", "virtio_ring", "virtio_pci", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_console"]
)
BUILT_IN = "(builtin)"  # what modinfo says instead of a file


def load(name: str, parameters: Mapping[str, str | int | bool]) -> dict[str, str]:
    """Unload and load; returns the parameters that can be read back from /sys/module. Raises RuntimeError."""
    if name.replace("-", "_") in OURS:
        raise RuntimeError(f"module {name} carries the control channel and cannot be loaded anew")
    known = parameters_of(name)
    for parameter in parameters:
        if parameter not in known:
            close = difflib.get_close_matches(parameter, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
            raise RuntimeError(f"module {name} has no parameter {parameter!r}; {hint}")
    words = [f"{parameter}={_word(value)}" for parameter, value in parameters.items()]
    _run("modprobe", "-r", name)
    _run("modprobe", name, *words)
    return read_back(name, parameters)


def insert(path: str) -> None:
    """insmod(8). Raises RuntimeError."""
    _run("insmod", path)


def code_of(name: str) -> dict[str, int]:
    """Where the sections of a loaded module lie that hold code (kernel/module/sysfs.c); those of its set-up are gone by now."""
    folder = Path("/sys/module") / name / "sections"
    return {path.name: int(path.read_text(), 16) for path in folder.glob(".text*")}


def parameters_of(name: str) -> list[str]:
    """The parameters that a module takes. RuntimeError where it cannot be loaded anew."""
    if _run("modinfo", "-F", "filename", name).strip() == BUILT_IN:
        raise RuntimeError(f"{name} is built into this kernel, so it cannot be loaded with parameters")
    lines = _run("modinfo", "-F", "parm", name).splitlines()
    return [line.partition(":")[0] for line in lines if ":" in line]


def read_back(name: str, parameters: Mapping[str, object]) -> dict[str, str]:
    """Values under /sys/module/NAME/parameters; a module need not show all of them."""
    folder = Path("/sys/module") / name.replace("-", "_") / "parameters"
    shown = {parameter: folder / parameter for parameter in parameters}
    return {parameter: file.read_text().strip() for parameter, file in shown.items() if file.is_file()}


def _word(value: str | int | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _run(*argv: str) -> str:
    """A command's standard output. RuntimeError with its own words."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(argv)}`: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout
