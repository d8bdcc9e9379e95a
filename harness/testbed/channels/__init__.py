"""Ways to work in a guest besides watching it: run a program, bring a file, take a file.

    channel              carried by                                     in the guest
    agent                JSON lines on the port org.netpoll.agent       guest/agent.py; always there, the default
    qemu-guest-agent     QMP's protocol on org.qemu.guest_agent.0       qemu-ga, started when it is asked for
    ssh                  ssh on the port org.netpoll.ssh, or, for a     sshd -i on that port, started when it is asked for,
                         guest that we did not build, on a NIC          or the guest's own sshd

In: one of the sockets of a `Machine`. Out: an open `Channel`. Rule: what can be done over one channel can be done over each;
only our agent also tells events, so it stays beside the others.

A virtio-serial port carries ssh as well as a network does, and needs none: no NIC of ours in the guest whose interface
disturbs a case, no address on the host, and a connection opens faster (0.14 s against 0.54 s over TCP, under software
emulation).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from harness.testbed.errors import GuestRefused

Entry = TypeVar("Entry", int, str, bool)
FILE_LIMIT = 64 << 20  # bytes; what a guest claims to be a file may have no end

ChannelName = Literal["agent", "qemu-guest-agent", "ssh"]


@dataclass(frozen=True)
class Ran:
    """A program that ended in the guest. `rc`: its exit status, or minus the signal that ended it (over ssh -1, whichever it
    was). Output is text with what is not UTF-8 replaced, and is cut after 64 KiB."""

    argv: tuple[str, ...]
    rc: int
    out: str
    err: str

    def checked(self) -> Ran:
        """This one, if it ended well. Raises GuestRefused with its words."""
        if self.rc != 0:
            raise GuestRefused(f"{list(self.argv)} ended with status {self.rc}: {self.err.strip()[-500:]}")
        return self


@dataclass(frozen=True)
class Login:
    """Who we are over ssh and whom we expect. `host_key`: an OpenSSH public key, `ssh-ed25519 AAAA...`."""

    user: str
    key: Path  # private key, without passphrase
    host_key: str


def entry(answer: Any, key: str, kind: type[Entry], whose: str) -> Entry:
    """An entry of a guest's answer. Raises GuestRefused when it is not there or of another kind: guests are not to be trusted."""
    found = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool) is not (kind is bool):
        raise GuestRefused(f"{whose} gave an answer without a proper {key!r}: {str(answer)[:200]}")
    return found


def unpacked(answer: Any, key: str, whose: str) -> bytes:
    """The same for bytes in base64."""
    try:
        return base64.b64decode(entry(answer, key, str, whose), validate=True)
    except ValueError as error:
        raise GuestRefused(f"{whose} gave a {key!r} that is not base64") from error


def bounded(data: bytes, path: str) -> bytes:
    """What was read so far. Raises GuestRefused when it is more than a file may be."""
    if len(data) > FILE_LIMIT:
        raise GuestRefused(f"{path} is longer than {FILE_LIMIT >> 20} MiB")
    return data


class Channel(Protocol):
    """Every method raises GuestSilent when the guest does not answer in time and GuestRefused when it answers that it cannot."""

    @property
    def name(self) -> ChannelName: ...

    async def open(self, within: float = 15) -> None:
        """Make contact and see that the other end answers. To be called once, before anything else."""

    async def run(self, argv: Sequence[str], within: float = 15) -> Ran:
        """Run a program to its end, without input; `argv[0]` is looked up in the guest's PATH. Any exit status is a result; a
        program that is not there is a refusal."""

    async def put(self, path: str, data: bytes, mode: int | None = None, within: float = 15) -> None:
        """Write a whole file, of /sys too; what was there is gone. `mode`: its permissions, None for the guest's own choice."""

    async def get(self, path: str, within: float = 15) -> bytes:
        """Read a whole file, of /proc and /sys too; FILE_LIMIT bytes at most."""

    async def close(self) -> None:
        """Let go. The guest goes on."""
