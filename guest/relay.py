"""A program at a virtio-serial port: `python3 -m guest.relay PORT PROGRAM ...` gives it a socket and carries octets both ways.

In: the port's device and the command. Out: its exit status. Rule: the port is waited for at one place only. virtio_console fetches
a buffer from the ring whenever somebody polls the port, and only the interrupt routine wakes: sshd, which has the port twice in each
ppoll() (once to read, once to write), sleeps on for ever when data comes between the two looks (docs/findings.md).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading

CHUNK = 1 << 16


def _port_to_program(port: int, program: socket.socket) -> None:
    """Until the host's end closes; a read of a port that nobody has open at the host's end gives no octets."""
    with contextlib.suppress(OSError):
        while data := os.read(port, CHUNK):
            program.sendall(data)
    with contextlib.suppress(OSError):
        program.shutdown(socket.SHUT_WR)


def _program_to_port(program: socket.socket, port: int) -> None:
    while data := program.recv(CHUNK):
        while data:
            data = data[os.write(port, data) :]


def relay(port: int, argv: list[str]) -> int:
    """Run `argv` with its input and output at `port`; its exit status."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            program = subprocess.Popen(argv, stdin=theirs.fileno(), stdout=theirs.fileno())
        threading.Thread(target=_port_to_program, args=(port, ours), daemon=True).start()
        with contextlib.suppress(OSError):
            _program_to_port(ours, port)
        return program.wait()


if __name__ == "__main__":
    sys.exit(relay(os.open(sys.argv[1], os.O_RDWR | os.O_CLOEXEC), sys.argv[2:]))
