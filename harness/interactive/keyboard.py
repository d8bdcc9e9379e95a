"""Keys -> bytes for the guest's shell, or a command for us.

In: what was typed, in pieces of any size. Out: `ToGuest` and `Command`, and what is to be echoed of a command, since the guest never
sees it. Rule: a line that begins with `:` is ours, everything else is the guest's, byte by byte and at once; `::` at a line's
beginning is one `:` for the guest.

A line begins after Enter, Ctrl-C, Ctrl-D and Ctrl-U, the keys that leave a shell's line empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

ENTER = b"\r\n"
EMPTIES = b"\r\n\x03\x04\x15"  # Enter, Ctrl-C, Ctrl-D, Ctrl-U
ERASE = b"\x7f\x08"
CANCEL = b"\x03\x15\x1b"  # Ctrl-C, Ctrl-U, Escape
RUB_OUT = b"\b \b"


@dataclass(frozen=True)
class ToGuest:
    data: bytes


@dataclass(frozen=True)
class Command:
    """The words behind the colon."""

    line: str


class Keyboard:
    """`echo` is given what to show of a command that is being typed."""

    def __init__(self, echo: Callable[[bytes], None]) -> None:
        self._echo = echo
        self._fresh = True  # the guest's line is empty
        self._command: bytearray | None = None  # what was typed behind the colon

    def feed(self, data: bytes, raw: bool = False) -> Iterator[ToGuest | Command]:
        """`raw`: a program has the whole screen of the guest's terminal, every key is its own."""
        passed = bytearray()
        for number in data:
            key = bytes([number])
            if self._command is not None:
                done = self._edit(key)
                if isinstance(done, ToGuest):
                    passed += done.data
                elif done is not None:
                    yield done
            elif key == b":" and self._fresh and not raw:
                self._command = bytearray()
                self._echo(key)
            else:
                passed += key
                self._fresh = key in EMPTIES
        if passed:
            yield ToGuest(bytes(passed))

    def _edit(self, key: bytes) -> ToGuest | Command | None:
        """One key of a command line."""
        assert self._command is not None
        if key in ENTER:
            line, self._command = self._command.decode(errors="replace"), None
            self._echo(b"\r\n")
            return Command(line.strip())
        if key == b":" and not self._command:
            self._leave()
            self._fresh = False
            return ToGuest(key)
        if key in CANCEL or (key in ERASE and not self._command):
            self._leave()
        elif key in ERASE:
            self._rub_out()
        elif key >= b" ":
            self._command += key
            self._echo(key)
        return None

    def _rub_out(self) -> None:
        """One character, which in UTF-8 may be several bytes."""
        assert self._command is not None
        text = self._command.decode(errors="replace")
        self._command[:] = text[:-1].encode()
        self._echo(RUB_OUT)

    def _leave(self) -> None:
        assert self._command is not None
        self._echo(RUB_OUT * (len(self._command.decode(errors="replace")) + 1))
        self._command = None
