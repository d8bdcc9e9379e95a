"""A case whose steps come one by one: its process, in a network namespace of its own, and the handle of it.

In: a `Job` with the topology, then a `Stage` a line on standard input. Out: a line of JSON for each, {} or {"error": ...}, and the case's
folder with all evidence. Rule: as a run does it (`bring_up` of harness.case, `run_stage` of harness.act, `settle` of harness.conduct); the process dies with its parent.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.act import run_stage
from harness.case import Case, Job, Silent, bring_up
from harness.conduct import settle
from harness.observe.events import Clock, Evidence
from harness.plan.model import Stage
from harness.testbed import namespace
from harness.testbed.errors import TestbedError
from harness.testbed.process import die_with

_JOB: TypeAdapter[Job] = TypeAdapter(Job)
SETTLE = 60.0  # seconds
PATIENCE = (
    180.0  # seconds that a step may take beyond what its own waits add up to, before its process is taken to hang
)


class Session:
    """The parent's handle: the guest is up once this is made. Raises TestbedError."""

    def __init__(self, job: Job) -> None:
        self.folder = job.folder
        parent = os.getpid()
        here = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        with (job.folder / "case.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.api.session"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                preexec_fn=lambda: die_with(parent),
                env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": path},
            )
        try:
            self._ask(_JOB.dump_json(job, by_alias=True).decode(), job.plan.stages[0])
        except BaseException:
            self.kill()
            raise

    def do(self, stage: Stage) -> None:
        """Carry a stage out, to its end. Raises TestbedError."""
        self._ask(stage.model_dump_json(by_alias=True), stage)

    def _ask(self, line: str, stage: Stage) -> None:
        within = PATIENCE + sum(getattr(action, "within", 0.0) for action in stage.actions)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(line, file=self._process.stdin, flush=True)
            if not select.select([self._process.stdout], [], [], within)[0]:
                self.kill()
                raise TestbedError(
                    f"{stage.title} did not end within {within:g} s", f"{self.folder} shows how far it came"
                )
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            said = (self.folder / "case.log").read_text(errors="replace")[-2000:]
            raise TestbedError(f"the case's process ended by itself\n{said}", f"{self.folder} shows how far it came")
        if error := json.loads(answer).get("error"):
            raise TestbedError(error, f"{self.folder} shows how far the guest came")

    def close(self) -> None:
        """Take what is still in a buffer, and end."""
        assert self._process.stdin is not None
        with ExitStack() as stack:
            stack.callback(self.kill)
            self._process.stdin.close()
            self._process.wait(SETTLE)

    def kill(self) -> None:
        """At once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


async def serve(job: Job) -> None:
    """In the case's process: bring the guest up, then a stage a line, until there are no more."""
    evidence = Evidence(job.folder / "evidence.jsonl", Clock.start())
    wall = datetime.datetime.now(datetime.UTC).isoformat()
    evidence.add("run", "start", case=job.plan.case, wall=wall, versions=dict(job.versions))
    try:
        async with bring_up(job, evidence) as case:
            await _stage(case, case.plan.stages[0])
            while line := await asyncio.to_thread(sys.stdin.readline):
                await _stage(case, Stage.model_validate_json(line))
            await case.machine.alive(settle(case), SETTLE, "the last of the evidence")
    except TestbedError as error:
        evidence.add("run", "error", what=error.what, hint=error.hint)
        _answer(error=str(error))
    finally:
        evidence.add("run", "end")
        evidence.close()


async def _stage(case: Case, stage: Stage) -> None:
    """A guest that falls silent is evidence for the judge, not an error of the test."""
    try:
        await run_stage(case, stage)
    except Silent as silent:
        print(f"the guest fell silent: {silent.__cause__}", file=sys.stderr)
    _answer()


def _answer(**keys: Any) -> None:
    print(json.dumps(keys), flush=True)


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends a case by killing it
    job = _JOB.validate_json(sys.stdin.readline())
    try:
        namespace.enter()
    except TestbedError as error:
        _answer(error=str(error))
        return 3
    asyncio.run(serve(job))
    return 0


if __name__ == "__main__":
    sys.exit(main())
