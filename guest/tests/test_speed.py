"""What `bench tg3` has the guest do, on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading

from guest import speed


def test_what_is_measured_is_told_as_json() -> None:
    done = subprocess.run([sys.executable, "-m", "guest.speed", "spin", "1000"], capture_output=True, check=True)
    told = json.loads(done.stdout)
    assert told["times"] == 1000
    assert told["seconds"] > 0


def test_datagrams_are_sent_and_counted() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        told = speed.sendto("127.0.0.1", str(sink.getsockname()[1]), "100", "20")
        assert told["frames"] == 20
        assert [len(sink.recv(2048)) for _ in range(20)] == [100] * 20


def test_a_receiver_asks_for_each_burst_and_says_when_it_is_done() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.settimeout(0.1)
        port = _free_port()
        told: list[dict[str, float]] = []
        worker = threading.Thread(target=lambda: told.append(speed.receive(str(port), "12", "4")))
        worker.start()
        words = [_first_word(sender, port)]
        sender.settimeout(10)
        while words[-1] != speed.DONE:
            for _ in range(4):
                sender.sendto(b"x", ("127.0.0.1", port))
            words.append(sender.recv(16))
        worker.join(10)
    assert words == [speed.GO, speed.GO, speed.GO, speed.DONE]
    assert told[0]["frames"] == 12


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _first_word(sender: socket.socket, port: int) -> bytes:
    while True:
        sender.sendto(b"here", ("127.0.0.1", port))
        try:
            return sender.recv(16)
        except (TimeoutError, ConnectionRefusedError):
            continue
