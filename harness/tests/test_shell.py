"""`shell` on real guests: typed into a pseudoterminal as a person would, and fed with a file of lines."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.run import Bench, load
from harness.tests.traces import MARK, marked, wait_until_gone

pytestmark = pytest.mark.guest
CASE = "panic[nic=virtio-net,crash=sysrq-c]"
READY = r"its guest is yours(?s:.*)# "  # with the prompt of the guest's shell
WITHIN = 60.0  # seconds for anything that is expected
COLUMNS, LINES = 101, 31


def _as_a_login_starts_it() -> None:
    """With a terminal of its own, and not deaf to its end, as nohup would make it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Typist:
    """A person at a terminal that runs `netpoll-harness shell`."""

    def __init__(self, command: list[str], marker: str) -> None:
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", LINES, COLUMNS, 0, 0))
        self.before = self.mode()
        self.seen = ""
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=_as_a_login_starts_it,
            env={**os.environ, "TERM": "vt100", MARK: marker},
        )

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, within: float = WITHIN) -> re.Match[str]:
        """What matches, and all before it is done with."""
        end = time.monotonic() + within
        while (found := re.search(pattern, self.seen)) is None:
            ready, _, _ = select.select([self.master], [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise AssertionError(f"no {pattern!r} within {within:g} s; the screen shows:\n{self.seen[-3000:]}")
            self.seen += os.read(self.master, 1 << 16).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found

    def ends(self, within: float = WITHIN) -> int:
        """The exit status; what is still printed must be read, or the end would wait for us."""
        end = time.monotonic() + within
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end; the screen shows:\n{self.seen[-3000:]}"
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 1 << 16).decode(errors="replace")
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 1 << 16).decode(errors="replace")
        return self.process.wait()

    def mode(self) -> list[Any]:
        """The terminal's attributes."""
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def command(bench: Bench, testcases: Path, tmp_path: Path) -> list[str]:
    """The command line; images and template are there already, so that no test waits for them."""
    bench.prepare(load([testcases / "crash" / "panic.yaml"], bench.options)[0])
    where = [str(testcases / "crash"), "--results", str(tmp_path)]
    return [sys.executable, "-m", "harness.cli", "shell", CASE, *where]


@pytest.fixture
def typist(command: list[str], tmp_path: Path) -> Iterator[Typist]:
    person = Typist(command, str(tmp_path))
    with contextlib.closing(person):
        yield person


def nothing_runs(marker: str) -> None:
    """Every process that carries the marker ends by itself."""
    assert wait_until_gone(marker) == {}


def test_a_session_from_the_first_key_to_the_verdict(typist: Typist, tmp_path: Path) -> None:
    typist.expect(READY)
    typist.type("echo $((6 * 7))ish; tty\r")
    typist.expect(r"\n(# )?42ish\r")  # and perhaps a captured frame, then
    typist.expect(r"/dev/pts/\d")
    typist.type("stty size\r")
    typist.expect(rf"\n(# )?{LINES} {COLUMNS}\r")
    typist.type("ping -c 1 -I eth0 198.51.100.100; ip -br link show eth0\r")
    typist.expect(r"n0 out (ARP|UDP|IPv4)")  # live capture, above the guest's own words
    typist.expect(r"eth0 +UP")
    typist.type(":steps\r")
    typist.expect(r"1 +crash by sysrq-c")
    typist.type(":step 1\r")
    typist.expect(r"step 1: crash by sysrq-c")
    typist.expect(r"console .*Kernel panic - not syncing: sysrq triggered crash")
    typist.expect(r"n0 out UDP 198\.51\.100\.10:6665 > 198\.51\.100\.100:6666")
    typist.expect(r"step 1 done")
    typist.expect(r"the guest has crashed, and its shell with it")
    typist.type("echo nobody hears this\r:step 2\r")
    typist.expect(r"step 2 done")
    typist.type(":quit\r")
    assert typist.ends() == 0, typist.seen
    folder = Path(re.findall(r"evidence: ([^\s\x1b]+)", typist.seen)[-1])
    assert folder.parent == tmp_path
    assert typist.mode() == typist.before
    nothing_runs(str(tmp_path))
    judged = subprocess.run(
        [sys.executable, "-m", "harness.cli", "judge", str(folder)], capture_output=True, text=True, check=False
    )
    assert judged.returncode == 0, judged.stdout
    assert judged.stdout.startswith("PASS"), judged.stdout


def test_the_end_of_the_guests_shell_is_the_end(typist: Typist, tmp_path: Path) -> None:
    typist.expect(READY)
    typist.type("sh -c 'echo asleep; exec sleep 1000'\r")
    typist.expect(r"\n(# )?asleep")  # said in the foreground, so that it is nobody else's to be interrupted
    typist.type("\x03")  # the guest's sleep gets it, not we
    typist.type("echo $((1 + 1)) still here\r")
    typist.expect(r"\n(# )?2 still here")
    fcntl.ioctl(typist.slave, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    typist.type("stty size; exit\r")
    typist.expect(r"\n(# )?40 120\r")
    assert typist.ends() == 0, typist.seen
    assert typist.mode() == typist.before
    nothing_runs(str(tmp_path))


def session_of(marker: str) -> int:
    """The process that holds the terminal."""
    found = [pid for pid, line in marked(marker) if "-m harness.shell" in line]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("who", ["the command", "the session"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_killed_it_gives_the_terminal_back_and_leaves_nothing(
    typist: Typist, tmp_path: Path, who: str, how: signal.Signals
) -> None:
    typist.expect(READY)
    typist.type("echo $((40 + 2))nd\r")
    typist.expect("42nd")
    assert typist.mode() != typist.before, "the terminal is raw while the shell has it"
    os.kill(typist.process.pid if who == "the command" else session_of(str(tmp_path)), how)
    assert typist.ends() != 0
    nothing_runs(str(tmp_path))
    assert typist.mode() == typist.before


def test_without_a_terminal_lines_are_a_script(command: list[str], tmp_path: Path) -> None:
    script = "uname -s\n\n:nonsense\nls /no/such/place\n:step 1\necho nobody hears this\n:steps\n"
    done = subprocess.run(
        command,
        input=script,
        env={**os.environ, "NETPOLL_TEST_MARK": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    places = [
        said.index(text)
        for text in ("its guest is yours", "\nLinux\n", "`:nonsense` is no command", "/no/such/place: No such")
    ]
    places += [
        said.index(text) for text in ("step 1 done", "the guest has crashed and runs nothing", "1 done    crash")
    ]
    assert places == sorted(places), said
    assert "\x1b" not in said
    nothing_runs(str(tmp_path))


def test_a_qemu_that_dies_ends_the_session(typist: Typist, tmp_path: Path) -> None:
    typist.expect(READY)
    (qemu,) = [pid for pid, line in marked(str(tmp_path)) if "/qemu-" in line]
    os.kill(qemu, signal.SIGKILL)
    assert typist.ends() == 3
    assert "QEMU ended with signal SIGKILL" in typist.seen
    assert typist.mode() == typist.before
    nothing_runs(str(tmp_path))


def test_an_unknown_case_is_a_usage_error(command: list[str]) -> None:
    done = subprocess.run(
        [word if word != CASE else "no/such" for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "names 0 cases" in done.stderr
