"""Case processes, forked from one that has everything imported: a case then starts in milliseconds.

In: one JSON line per case on standard input: {"job": ...}. Out: one JSON line per case: {"status": N}. Rule: the zygote has one
thread and one child at a time; each case is a process of its own in a network namespace of its own, dies with the zygote,
and the zygote dies with whoever started it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import TypeAdapter

from harness.case import Job, shares_memory
from harness.conduct import conduct
from harness.originals import Copies, Keeper, in_child
from harness.testbed import namespace
from harness.testbed.errors import TestbedError
from harness.testbed.original import Copy
from harness.testbed.process import die_with, module_environment

_JOB: TypeAdapter[Job] = TypeAdapter(Job)
GRACE = 60  # seconds that a case process may take beyond its plan's timeout
ROOM = 1 << 16  # bytes; a file system with less is as good as full


@dataclass(frozen=True)
class From:
    """Where copies come from: the address of whoever keeps the run's originals (None: the process that starts cases does), and what
    makes a QEMU forkable."""

    address: str | None
    forkable: Path


class Zygote:
    """The parent's handle. Started on first use, ended with the context; a case that is cut short takes it along."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Job, copies: From | None = None) -> None:
        """Run one case to its end; with `copies` on a copy, where several have run on the same template. RuntimeError with the case's
        log if its process failed before it could say why in evidence, TestbedError if that was for want of room. On KeyboardInterrupt the case is killed and nothing of it is left."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(_request(job, copies)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BaseException:
            self.close()
            raise
        if not answer:
            self.close()
            raise RuntimeError("the process that starts cases ended by itself")
        if (status := json.loads(answer)["status"]) != 0:
            _require_room(job.folder)
            log = job.folder / "case.log"
            said = log.read_text(errors="replace").strip()[-4000:] if log.exists() else ""
            raise RuntimeError(f"the case's process ended with status {status}\n{said}")

    def start(self) -> None:
        """At once, and not with the first case."""
        self._started()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            parent = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.zygote"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=lambda: die_with(parent),
                env=module_environment(),
            )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _require_room(folder: Path) -> None:
    """Raises TestbedError if the case's process failed for want of room, which it could not even log."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < ROOM:
        raise TestbedError(
            f"{folder}: no space left on device for the case's evidence", "make room, or name another folder: --results"
        )


def as_text(job: Job) -> str:
    """For a process that runs it."""
    return _JOB.dump_json(job, by_alias=True).decode()


def _request(job: Job, copies: From | None) -> dict[str, str]:
    """`job` is text in text: only the case's process reads it."""
    text = as_text(job)
    if copies is None or not copyable(job):
        return {"job": text}
    return {
        "job": text,
        "like": kind_of(job),
        "originals": copies.address or "",
        "forkable": str(copies.forkable),
    }


def kind_of(job: Job) -> str:
    """Cases of one kind can run on copies of one machine: the same template, and memory that other processes see, or that none does."""
    return job.template.folder.name + (" shared" if shares_memory(job) else "")


def copyable(job: Job) -> bool:
    """Under software emulation alone there is something to save; a disk is not copied."""
    return job.ingredients.accel == "tcg" and not job.cold and job.ingredients.own is None


def _case(text: str, copy: Copy | None) -> int:
    """In the child: enter a namespace, then conduct. The status is 0 if evidence says what happened."""
    job = _JOB.validate_json(text)
    log = os.open(job.folder / "case.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    signal.alarm(int(job.plan.timeout) + GRACE)  # conduct keeps the time; this is for a conductor that hangs itself
    if job.plan.wires == "tap":  # sockets are nobody else's anywhere, and need no right to a namespace
        namespace.enter()
    asyncio.run(conduct(job, copy))
    return 0


class Source:
    """Where this process gets its copies: from whoever the requests name, or, once there were two cases, from one of its own."""

    def __init__(self) -> None:
        self._asked = 0
        self._keeper: Keeper | None = None
        self._copies: Copies | None = None

    def copy(self, request: Mapping[str, str]) -> Copy | None:
        """A copy for this case, if it may have one and there is one."""
        if "like" not in request:
            return None
        self._asked += 1
        if self._copies is None:
            address = request["originals"]
            if not address and self._asked < 2:  # a run of one case needs no further process
                return None
            if not address:
                self._keeper = Keeper()
            self._copies = Copies(self._keeper.address if self._keeper is not None else address)
            if self._keeper is not None:
                return None  # it takes a moment to come up
        return self._copies.copy(request["like"], request["forkable"], request["job"])

    def done(self, copy: Copy) -> None:
        assert self._copies is not None
        self._copies.done(copy)


def main() -> int:
    gc.collect()
    gc.freeze()  # what cases share stays shared: a collection writes into every object that it looks at
    replies = os.fdopen(os.dup(1), "w")
    source = Source()
    for line in sys.stdin:
        request = json.loads(line)
        copy = source.copy(request)
        child = in_child(partial(_case, request["job"], copy))
        _, wait_status = os.waitpid(child, 0)
        if copy is not None:
            source.done(copy)
        print(json.dumps({"status": os.waitstatus_to_exitcode(wait_status)}), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
