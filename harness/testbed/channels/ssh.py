"""ssh as a `Channel`: paramiko over any connected socket, be it a virtio-serial port or a NIC.

In: a socket whose other end is an ssh server, and a `Login`. Out: `Channel`, files over SFTP, and shells on a terminal. Rule: the
server is who its host key says, or there is no connection: a key that we do not know is never taken.

paramiko works with threads and blocks, at places without any limit (the answer to a request, the start of SFTP); here each call runs
in a worker thread, and when its time is up the connection is shut down, which ends every wait in paramiko.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from harness.testbed.channels import FILE_LIMIT, ChannelName, Login, Ran, bounded
from harness.testbed.errors import GuestRefused, GuestSilent, TestbedError

OUTPUT_LIMIT = 64 << 10  # bytes kept of a program's output, as our own agent does
STALE = "another machine answers, or the host key given for this guest is out of date"
GRACE = 1.0  # seconds that a call of paramiko's gets beyond its own limit before the connection is shut down under it
NOT_FOUND = 127  # exit status of a shell that found no such program

Result = TypeVar("Result")

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what fails is raised; it need not be printed as well


class Ssh:
    """See `harness.testbed.channels.Channel`. Programs are run by the user's shell there, with each word quoted."""

    name: ChannelName = "ssh"

    def __init__(self, sock: socket.socket, login: Login) -> None:
        self._sock = sock
        self._login = login
        self._transport: paramiko.Transport | None = None
        self._sftp: paramiko.SFTPClient | None = None

    async def open(self, within: float = 15) -> None:
        key = _private_key(self._login.key)
        await self._in_thread(lambda: self._connect(key, within), "the ssh server's answer", within)

    def _connect(self, key: paramiko.PKey, within: float) -> None:
        self._sock.setblocking(True)
        transport = paramiko.Transport(self._sock)
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = within
        try:
            transport.get_security_options().key_types = _algorithms(self._login.host_key)
            _greet(transport, within)
            _check_host(transport.get_remote_server_key(), self._login.host_key)
            transport.auth_publickey(self._login.user, key)
        except BaseException:
            transport.close()
            raise
        self._transport = transport

    async def run(self, argv: Sequence[str], within: float = 15) -> Ran:
        done = await self._in_thread(lambda: self._run(argv, within), f"the end of {list(argv)}", within)
        if done.rc == NOT_FOUND:
            raise GuestRefused(f"{list(argv)}: {done.err.strip()[-500:]}")
        return done

    def _run(self, argv: Sequence[str], within: float) -> Ran:
        deadline = time.monotonic() + within
        with contextlib.closing(self.transport.open_session(timeout=within)) as session:
            session.settimeout(within)
            session.exec_command(f"exec {shlex.join(argv)}")  # so that a signal to it is one to us
            session.shutdown_write()
            out, err = _drained(session, deadline)
            if not session.status_event.wait(deadline - time.monotonic()):
                raise TimeoutError
            return Ran(tuple(argv), session.recv_exit_status(), out, err)

    async def put(self, path: str, data: bytes, mode: int | None = None, within: float = 15) -> None:
        def write() -> None:
            with self._files(within).open(path, "wb") as file:
                if mode is not None:
                    file.chmod(mode)
                file.write(data)

        await self._in_thread(write, f"{path} written over SFTP", within, path)

    async def get(self, path: str, within: float = 15) -> bytes:
        def read() -> bytes:
            with self._files(within).open(path, "rb") as file:
                return bounded(file.read(FILE_LIMIT + 1), path)

        return await self._in_thread(read, f"{path} read over SFTP", within, path)

    async def shell(self, term: str, columns: int, lines: int, within: float = 15) -> paramiko.Channel:
        """The user's shell on a terminal of that type and size; its bytes are the caller's."""

        def start() -> paramiko.Channel:
            session = self.transport.open_session(timeout=within)
            session.get_pty(term, columns, lines)
            session.invoke_shell()
            return session

        return await self._in_thread(start, "a shell over ssh", within)

    async def close(self) -> None:
        if self._transport is not None:
            self._hang_up()
            await asyncio.to_thread(self._transport.close)

    async def _in_thread(self, work: Callable[[], Result], what: str, within: float, path: str = "") -> Result:
        up = threading.Timer(within + GRACE, self._hang_up)
        up.start()
        try:
            return await asyncio.to_thread(_translated, work, f"{what} within {within:g} s", path)
        except asyncio.CancelledError:
            self._hang_up()  # the thread cannot be cancelled
            raise
        finally:
            up.cancel()

    def _hang_up(self) -> None:
        """Ends the connection, and with it every wait for something from it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    @property
    def transport(self) -> paramiko.Transport:
        """The open connection. Raises GuestSilent when there is none, or no longer."""
        if self._transport is None or not self._transport.is_active():
            raise GuestSilent("the ssh connection is not open", "the guest may have crashed")
        return self._transport

    def _files(self, within: float) -> paramiko.SFTPClient:
        if self._sftp is None or self._sftp.get_channel() is None:
            self._sftp = self.transport.open_sftp_client()
        if self._sftp is None:
            raise GuestRefused("the guest's ssh server has no SFTP")
        channel = self._sftp.get_channel()
        if channel is not None:
            channel.settimeout(within)
        return self._sftp


def _drained(session: paramiko.Channel, deadline: float) -> tuple[str, str]:
    """Both outputs to their ends, side by side: they share one window, and a full one must not stop the other."""
    with ThreadPoolExecutor(1) as other:
        err = other.submit(_drain, session, session.recv_stderr, deadline)
        try:
            out = _drain(session, session.recv, deadline)
            return out, err.result()
        except BaseException:
            session.close()  # ends the other thread's read
            raise


def _drain(session: paramiko.Channel, receive: Callable[[int], bytes], deadline: float) -> str:
    kept = bytearray()
    while True:
        session.settimeout(max(deadline - time.monotonic(), 0.001))
        if not (data := receive(1 << 16)):
            return kept.decode(errors="replace")
        kept += data[: OUTPUT_LIMIT - len(kept)]


def _private_key(path: Path) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError as error:
        raise TestbedError(f"{path}: no such private key") from error
    except (OSError, ValueError, paramiko.SSHException) as error:
        hint = "give a private key in OpenSSH's or PEM's form, without a passphrase"
        raise TestbedError(f"{path} cannot be used as a private key: {error}", hint) from error


def _greet(transport: paramiko.Transport, within: float) -> None:
    try:
        transport.start_client(timeout=within)
    except IncompatiblePeer as error:
        raise TestbedError(f"the ssh server has no host key of the kind we expect: {error}", STALE) from error


def _algorithms(host_key: str) -> tuple[str, ...]:
    """Of the server's keys we ask for the one that we know (RFC 8332: one kind of RSA key, several signatures)."""
    kind = (host_key.split() or [""])[0]
    return {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}.get(kind, (kind,))


def _check_host(offered: paramiko.PKey, expected: str) -> None:
    words = expected.split()
    if [offered.get_name(), offered.get_base64()] != words[:2]:
        raise TestbedError(
            f"the ssh server is not the one we expect: its host key is {offered.get_name()} {offered.fingerprint}",
            STALE,
        )


def _translated(work: Callable[[], Result], what: str, path: str) -> Result:
    with _errors(what, path):
        return work()


@contextlib.contextmanager
def _errors(what: str, path: str) -> Iterator[None]:
    """paramiko's exceptions in our words. A subclass of OSError without errno is SFTP's SSH_FX_FAILURE."""
    try:
        yield
    except TestbedError:
        raise
    except paramiko.AuthenticationException as error:
        raise GuestRefused(f"the ssh server refused the key: {error}", "has this user that key there?") from error
    except (TimeoutError, EOFError) as error:
        raise GuestSilent(f"ssh: {what} did not come") from error
    except paramiko.SSHException as error:
        raise GuestSilent(f"ssh: {what} did not come: {error}") from error
    except OSError as error:
        raise GuestRefused(f"ssh: {path or what}: {error}") from error
