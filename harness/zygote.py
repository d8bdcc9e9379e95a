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
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter

from harness.case import Job, shares_memory
from harness.conduct import conduct
from harness.testbed import namespace
from harness.testbed.errors import TestbedError
from harness.testbed.original import Copy, NoCopy, Original, end_copy, start
from harness.testbed.process import die_with
from harness.testbed.qemu import Memory
from harness.testbed.template import clone_argv
from harness.warm import warm_up

_JOB: TypeAdapter[Job] = TypeAdapter(Job)
GRACE = 60  # seconds that a case process may take beyond its plan's timeout
ROOM = 1 << 16  # bytes; a file system with less is as good as full
PLAIN = 2  # cases on one template that are restored before a machine is warmed up for copies, which takes as long as some of them
WARM = 60  # seconds that this may take
EXIT_CASE = 70  # of a case process that could not even write evidence; sysexits' EX_SOFTWARE


class Zygote:
    """The parent's handle. Started on first use, ended with the context; a case that is cut short takes it along."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Job, forkable: Path | None = None) -> None:
        """Run one case to its end; with `forkable` on a copy, where several have run on the same template. RuntimeError with the case's log if its process failed before it could say why in
        evidence, TestbedError if that was for want of room. On KeyboardInterrupt the case is killed and nothing of it is left."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(_request(job, forkable)) + "\n")
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
                env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(_search_path())},
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


def _search_path() -> list[str]:
    """Where this very harness was imported from comes first."""
    here = str(Path(__file__).resolve().parent.parent)
    return [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]


def _request(job: Job, forkable: Path | None) -> dict[str, Any]:
    """`job` is text in text: only the case's process reads it."""
    text = _JOB.dump_json(job, by_alias=True).decode()
    if forkable is None or not copyable(job):
        return {"job": text}
    return {"job": text, "like": job.template.folder.name, "forkable": str(forkable)}


def copyable(job: Job) -> bool:
    """Under software emulation alone there is something to save; memory that another process sees, and a disk, are not copied."""
    return job.ingredients.accel == "tcg" and not job.cold and not shares_memory(job) and job.ingredients.own is None


class Originals:
    """The machines that cases are copied from, by their templates. They end with this process, at the latest."""

    def __init__(self) -> None:
        self._uses: Counter[str] = Counter()
        self._known: dict[str, Original | None] = {}  # None: there is none to be had

    def copy(self, request: Mapping[str, str]) -> Copy | None:
        """A copy for this case, if it is worth it and can be had."""
        if (like := request.get("like")) is None:
            return None
        self._uses[like] += 1
        if self._uses[like] <= PLAIN:
            return None
        if like not in self._known:
            self._known[like] = self._made(request)
        original = self._known[like]
        try:
            return None if original is None else original.copy()
        except NoCopy as error:
            print(f"cases are restored from their template: {error.what}", file=sys.stderr)
            self._drop(like)
            return None

    def _made(self, request: Mapping[str, str]) -> Original | None:
        job = _JOB.validate_json(request["job"])
        argv = partial(clone_argv, job.ingredients, Memory(str(job.template.ram), False), folder=job.template.folder)
        try:
            original = start(argv, Path(request["forkable"]))
        except TestbedError as error:
            print(f"cases are restored from their template: {error.what}", file=sys.stderr)
            return None
        if (status := _in_child(partial(_warm, original, job))) != 0:
            print(f"cases are restored from their template: warming up ended with {status}", file=sys.stderr)
            original.close()
            return None
        return original

    def _drop(self, like: str) -> None:
        if (original := self._known[like]) is not None:
            original.close()
        self._known[like] = None


def _warm(original: Original, job: Job) -> int:
    signal.alarm(WARM)
    namespace.enter()
    warm_up(original, job)
    return 0


def _in_child(work: Callable[[], int]) -> int:
    """What `work` returns, done in a child that dies with us and ends with it."""
    me = os.getpid()
    child = os.fork()
    if child == 0:
        status = EXIT_CASE
        try:
            die_with(me)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends a case by killing it
            status = work()
        except BaseException as error:  # the child must never return into the loop
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, wait_status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(wait_status)


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


def main() -> int:
    gc.collect()
    gc.freeze()  # what cases share stays shared: a collection writes into every object that it looks at
    replies = os.fdopen(os.dup(1), "w")
    originals = Originals()
    for line in sys.stdin:
        request = json.loads(line)
        copy = originals.copy(request)
        try:
            status = _in_child(partial(_case, request["job"], copy))
        finally:
            if copy is not None:
                copy.ends.close()
                end_copy(copy.pid)
        print(json.dumps({"status": status}), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
