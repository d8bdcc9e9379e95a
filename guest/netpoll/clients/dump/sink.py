"""Where a dump goes: what a server needs of the disk, whichever protocol it speaks.

In: bytes at offsets. Out: a finished file, or one that says that it is not. The one rule: what write() took is in the file, so that
it may be acknowledged, and a server that is started anew finds it.
"""

from __future__ import annotations

import enum
from typing import Protocol


class SinkError(Exception):
    """The dump cannot go on: no space, a limit, a name that leads elsewhere. str() can be told to the client."""


class Kept(enum.Enum):
    """What there is of a dump already."""

    NOTHING = "nothing"
    INCOMPLETE = "incomplete"
    COMPLETE = "complete"


class Sink(Protocol):
    """One dump's files."""

    def write(self, offset: int, data: bytes) -> None:
        """All of `data`, at that offset of the file. Raises SinkError."""

    def log(self, line: str) -> None:
        """A line of the dump's log, which never fails the dump."""

    def keep(self, state: bytes) -> None:
        """Replace the note that resuming needs; best effort."""

    def kept(self) -> bytes:
        """That note, of a dump that goes on; empty if there is none."""

    def finish(self, length: int, name: str, *, exact: bool) -> None:
        """The file is whole, at least (or exactly) `length` bytes long, and gets its `name`. Raises SinkError."""

    def abandon(self, why: str, *, partial: bool) -> None:
        """No more comes. `partial`: nor will it ever, and the file's name says so; else a client may go on with it."""


class Store(Protocol):
    """All dumps. `peer` is the client's address as text, `name` its dump's (0: none), `path` the folder that it asks for."""

    def find(self, peer: str, name: int, path: str | None) -> Kept:
        """What there is; NOTHING for a dump without a name."""

    def open(self, peer: str, name: int, path: str | None, protocol: str) -> Sink:
        """A new dump, or the incomplete one of that name. Raises SinkError."""
