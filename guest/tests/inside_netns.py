"""Tests that need a network namespace of their own, with themselves inside.

In: a test that asks for the fixture `netns`. Out: the same test, its body run by a forked child that has
entered a fresh namespace (and, without root, a user namespace in which it may configure that). The rule it
keeps: the namespace lives exactly as long as that process, which dies with pytest; the host's own network
is never looked at.

Where the system allows no namespaces the test is skipped and says so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import select
import signal
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from guest.tests.kernel_end import KernelEnd

DEADLINE = 60  # seconds for one test
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1


@pytest.fixture
def netns() -> None:
    """A KernelEnd, where the test's body runs; nothing here, where it does not."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the test's body in a namespace of its own, in place of here."""
    if "netns" not in pyfuncitem.fixturenames:
        return None
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _be_the_child(pyfuncitem, write_end)
    os.close(write_end)
    try:
        outcome, text = _result(read_end)
    finally:
        os.close(read_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if outcome == "skipped":
        pytest.skip(text)
    if outcome == "failed":
        pytest.fail(text, pytrace=False)
    return True


def _result(read_end: int) -> tuple[str, str]:
    """What the child reports before it ends, or before the deadline."""
    data = b""
    ready = select.poll()
    ready.register(read_end, select.POLLIN)
    while ready.poll(DEADLINE * 1000):
        chunk = os.read(read_end, 65536)
        data += chunk
        if not chunk:
            result: tuple[str, str] = pickle.loads(data) if data else ("failed", "the child died without a word")
            return result
    return "failed", f"not done within {DEADLINE} s"


def _be_the_child(item: pytest.Function, write_end: int) -> NoReturn:
    """Enter, run, report, and never return to pytest."""
    try:
        result = _run(item)
    except pytest.skip.Exception as skip:
        result = ("skipped", str(skip))
    except BaseException:
        result = ("failed", str(pytest.ExceptionInfo.from_current().getrepr(style="long")))
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(pickle.dumps(result))
    os._exit(0)


def _run(item: pytest.Function) -> tuple[str, str]:
    enter_namespace()
    with KernelEnd() as kernel:
        wanted = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
        item.obj(**wanted | {"netns": kernel})
    return "passed", ""


def enter_namespace() -> None:
    """Put this process, which must have one thread, into a network namespace; skips where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if uid else 0)):
        pytest.skip(f"no network namespace here: {errno.errorcode[ctypes.get_errno()]}")
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
