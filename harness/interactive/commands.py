"""The commands of `netpoll-harness shell`: a case's steps by hand.

In: the words behind a colon. Out: steps run one after the other, and what became of them, said to the screen. Rule: one step at a
time; a command that makes no sense changes nothing and says what would.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from harness.plan.model import Plan, Stage
from harness.testbed.errors import TestbedError

HELP = """\
:steps          the steps of this case, and which were done
:step           run the next one      :step 3   run step 3      :step 2-4   run steps 2 to 4
:stop           stop waiting for what a step waits for
:capture off    leave out the frames that pass      :console off    leave out the console's lines      (and on)
:quit           end the session (also: end the guest's shell)
::              one colon for the guest
everything else goes to the guest's shell"""

SOURCES = {"capture": "wire", "console": "console"}  # what a command calls it, what events call it


class Commands:
    """`run` does a stage, `crashed` tells whether one of them has crashed the guest, `say` shows a line.
    `hidden`: the sources of events that are not to be shown, which the commands change."""

    def __init__(
        self,
        plan: Plan,
        run: Callable[[Stage], Awaitable[None]],
        crashed: Callable[[], bool],
        say: Callable[[str], None],
        hidden: set[str],
    ) -> None:
        self._stages = {stage.step: stage for stage in plan.stages}
        self._run = run
        self._crashed = crashed
        self._say = say
        self._hidden = hidden
        self._became = {0: "done"}
        self._last = 0
        self._task: asyncio.Task[None] | None = None

    def take(self, line: str) -> bool:
        """Begin a command; False when the session is to end."""
        word, *rest = line.split() or ["help"]
        match word, rest:
            case (("quit" | "q" | "exit"), []):
                return False
            case (("help" | "h" | "?"), []):
                self._say(HELP)
            case "steps", []:
                self._say("\n".join(self._listed()))
            case (("capture" | "console"), [("on" | "off") as switch]):
                (self._hidden.add if switch == "off" else self._hidden.discard)(SOURCES[word])
            case "stop", []:
                self._stop()
            case "step", []:
                self._begin([self._last + 1])
            case "step", [numbers] if found := re.fullmatch(r"(\d+)(?:-(\d+))?", numbers):
                first = int(found[1])
                self._begin(list(range(first, int(found[2] or first) + 1)))
            case _:
                self._say(f"`:{line}` is no command; :help tells those that are")
        return True

    async def idle(self) -> None:
        """Until no step is under way."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def stop(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await self.idle()

    def _stop(self) -> None:
        if self._task is None or self._task.done():
            self._say("no step is under way")
        else:
            self._task.cancel()

    def _listed(self) -> list[str]:
        return [f"{n:3} {self._became.get(n, ''):7} {stage.title}" for n, stage in self._stages.items() if n > 0]

    def _begin(self, numbers: Sequence[int]) -> None:
        if self._task is not None and not self._task.done():
            self._say("a step is still under way; wait for it, or :stop")
            return
        last = max(self._stages)
        if not numbers or not all(1 <= number <= last for number in numbers):
            self._say(f"the steps are 1 to {last}; :steps lists them")
            return
        self._task = asyncio.create_task(self._all(numbers))

    async def _all(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            with contextlib.suppress(asyncio.CancelledError):
                if await self._one(self._stages[number]):
                    continue
            return

    async def _one(self, stage: Stage) -> bool:
        """Run a step; whether the next one may follow."""
        self._say(f"step {stage.step}: {stage.title}")
        self._last, began = stage.step, time.monotonic()
        self._became[stage.step] = "stopped"
        try:
            await self._run(stage)
        except TestbedError as error:
            self._became[stage.step] = "failed"
            self._say(f"step {stage.step} failed: {error}")
            return False
        self._became[stage.step] = "done"
        self._say(f"step {stage.step} done, {time.monotonic() - began:.2f} s")
        if self._crashed():
            self._say("the guest has crashed, and its shell with it; steps that need no guest still work, :quit ends")
        return True
