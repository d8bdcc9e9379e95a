"""A program behind a port: octets both ways, to its end."""

from __future__ import annotations

import random
import socket
import threading

from guest import relay

DATA = random.Random(11).randbytes(3_000_000)


def test_everything_comes_back_and_the_programs_status_is_told() -> None:
    host, port = socket.socketpair()
    status: list[int] = []
    worker = threading.Thread(target=lambda: status.append(relay.relay(port.fileno(), ["sh", "-c", "cat; exit 7"])))
    worker.start()
    sender = threading.Thread(target=_send_all, args=(host,))
    sender.start()
    got = bytearray()
    host.settimeout(30)
    while len(got) < len(DATA):
        got += host.recv(1 << 16)
    worker.join(30)
    sender.join(30)
    assert got == DATA
    assert status == [7]
    host.close()
    port.close()


def test_a_program_that_ends_first_ends_the_relay() -> None:
    host, port = socket.socketpair()
    assert relay.relay(port.fileno(), ["true"]) == 0
    host.close()
    port.close()


def _send_all(host: socket.socket) -> None:
    host.sendall(DATA)
    host.shutdown(socket.SHUT_WR)
