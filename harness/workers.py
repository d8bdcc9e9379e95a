"""pytest-xdist's side of the plugin: how many workers there are, and that all of them write to one folder.

In: xdist's hooks. Out: a number for `-n auto`, what each worker is told. Rule: no worker is started for which this machine has no
memory; cases are not spread here, that is xdist's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.originals import Keeper
from harness.run import Options, load
from harness.scenario.errors import ScenarioErrors
from harness.scenario.model import Guest
from harness.testbed.capacity import MiB, available_memory, carried, guest_needs

USUAL: int = Guest.model_fields["memory"].default


def auto(arguments: Sequence[str], options: Options) -> int:
    """What `-n auto` means: as many as cores and memory carry guests of the largest size among the testcases."""
    return carried(largest(arguments, options) or USUAL, cache=options.cache)


class Workers:
    """A plugin of the process that starts workers."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._keeper: Keeper | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Raises pytest.UsageError for more workers than memory: the kernel would end one of the guests in the middle. Cases are
        handed out one by one: a chunk of xdist's may be all the dumps of the catalogue, for one worker."""
        option, memory = session.config.option, largest(session.config.args, self._options)
        wanted = getattr(option, "numprocesses", None) or 0
        if wanted > 1 and (refused := too_many(wanted, memory)):
            raise pytest.UsageError(refused)
        if memory and option.maxschedchunk is None:
            option.maxschedchunk = 1
        if wanted > 1 and memory and not self._options.fresh:
            self._keeper = Keeper()

    def pytest_sessionfinish(self) -> None:
        if self._keeper is not None:
            self._keeper.close()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker here writes to the run's folder; one elsewhere sends what it wrote."""
        if node.gateway.spec.popen:
            node.workerinput["netpoll_results"] = str(self._options.results)
            if self._keeper is not None:
                node.workerinput["netpoll_originals"] = self._keeper.address
        else:
            node.workerinput["netpoll_away"] = True


def too_many(workers: int, memory: int, free: int | None = None) -> str | None:
    """Words for a number of workers whose guests of `memory` MiB do not fit into `free` bytes (default: what there is)."""
    free = available_memory() if free is None else free
    if not memory or workers * guest_needs(memory) <= free:
        return None
    need = workers * guest_needs(memory) // MiB
    fit = max(1, free // guest_needs(memory))
    return (
        f"-n {workers}: so many guests of {memory} MiB may come to need {need} MiB with what is around them, "
        f"{free // MiB} MiB are free\n  -> -n {fit}, or -n auto"
    )


def largest(arguments: Sequence[str], options: Options) -> int:
    """MiB of the largest guest in the testcases that pytest's arguments name; without testcases 0."""
    paths = [Path(argument.split("::")[0]) for argument in arguments]
    named = [path for path in paths if path.suffix in (".yaml", ".yml") or "testcases" in path.absolute().parts]
    try:
        plans = load([path for path in named if path.exists()], options)
    except ScenarioErrors:  # pytest's collection says it better
        return USUAL
    return max((plan.machine.memory for plan in plans), default=0)
