"""The relay that stands for a tap: both ways, in order, stamped by the kernel when sent, nothing lost while somebody is late."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from guest.netpoll.middleware.pcapng_read import read_file
from harness.observe import relay
from harness.observe.events import Clock, Evidence
from harness.observe.relay import Relay
from harness.tests.test_observe_frames import FRAME


@dataclass
class Stage:
    relay: Relay
    evidence: Evidence
    qemu: socket.socket
    path: Path

    @property
    def stack(self) -> socket.socket:
        return self.relay.for_stack

    def frames(self) -> list[dict[str, Any]]:
        return [each for each in self.evidence.events if each["kind"] == "frame"]

    def errors(self) -> list[str]:
        return [each["what"] for each in self.evidence.events if each["kind"] == "error"]

    def readable(self) -> bool:
        return bool(select.select([self.relay], [], [], 0)[0])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    evidence = Evidence(tmp_path / "evidence.jsonl", Clock.start())
    made = Relay("dgram-n0", "n0", tmp_path / "dgram-n0.pcapng", evidence)
    qemu = socket.socket(fileno=os.dup(made.for_qemu))
    with qemu:
        yield Stage(made, evidence, qemu, tmp_path / "dgram-n0.pcapng")
        made.close()
    evidence.close()


def test_both_ways_with_the_moment_of_sending(stage: Stage) -> None:
    assert not stage.readable()
    sent = []
    for sock in (stage.qemu, stage.stack, stage.qemu):
        sent.append(time.time_ns())
        sock.send(FRAME)
    sent.append(time.time_ns())
    assert stage.readable()
    time.sleep(0.05)  # the relay comes late; the stamps must not
    assert stage.relay.drain() == 3
    assert stage.relay.drain() == 0
    assert [each["dir"] for each in stage.frames()] == ["out", "in", "out"]
    stamps = [each["wall_ns"] for each in stage.frames()]
    assert all(before <= stamp <= after for before, stamp, after in zip(sent, stamps, sent[1:], strict=False))
    assert {each["tap"] for each in stage.frames()} == {"dgram-n0"}
    assert [stage.stack.recv(2000), stage.stack.recv(2000), stage.qemu.recv(2000)] == [FRAME] * 3
    stage.relay.close()
    saved = read_file(stage.path)
    assert [packet.timestamp for packet in saved] == stamps
    assert "relay" in saved[0].interface.description


def test_nothing_is_lost_or_mixed_up_while_our_stack_is_late(stage: Stage) -> None:
    count, sent = 5000, 0
    got: list[bytes] = []
    while len(got) < count:
        while sent < count and select.select([], [stage.qemu], [], 0)[1]:
            stage.qemu.send(FRAME + sent.to_bytes(4, "big"))
            sent += 1
        stage.relay.drain()
        if sent == count or sent % 1000 == 0:
            while select.select([stage.stack], [], [], 0)[0]:
                got.append(stage.stack.recv(2000)[-4:])
    assert got == [number.to_bytes(4, "big") for number in range(count)]
    assert len(stage.frames()) == count
    assert stage.errors() == []


def fill(stage: Stage, source: socket.socket, count: int) -> None:
    for _ in range(count):
        source.send(FRAME)
        stage.relay.drain()


def test_a_stack_that_never_takes_its_frames_is_an_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BACKLOG", 10)
    stage.relay._host.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    fill(stage, stage.qemu, 100)
    stage.relay.close()
    (error,) = stage.errors()
    assert "lost" in error
    assert "on their way to our stack" in error


def test_a_guest_that_takes_no_more_loses_what_a_full_tap_would(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BACKLOG", 10)
    stage.relay._guest.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    fill(stage, stage.stack, 100)
    assert len(stage.frames()) == 100, "what was sent to it was on the wire"
    stage.relay.close()
    assert stage.errors() == []


def test_a_side_that_closes_ends_nothing(stage: Stage) -> None:
    stage.qemu.send(FRAME)
    stage.qemu.close()
    os.close(os.dup(stage.relay.for_qemu))
    assert stage.relay.drain() == 1
    stage.relay.close()
    stage.relay.close()
    assert stage.relay.fileno() == -1
    assert stage.relay.drain() == 0


def test_a_reader_that_has_stopped_lets_the_sender_fill_its_socket_and_takes_all_of_it_later(stage: Stage) -> None:
    stage.relay.hold(True)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 1000:
            stage.qemu.send(FRAME)
            sent += 1
    assert 0 < sent < 20, "QEMU cannot get rid of more than a few"
    assert not stage.readable()
    stage.stack.send(FRAME)
    assert stage.relay.drain() == 1, "the other way goes on"
    stage.relay.hold(False)
    assert stage.relay.drain() == sent
    assert [each["dir"] for each in stage.frames()] == ["in", *["out"] * sent]
    stage.qemu.send(FRAME)
    assert stage.relay.drain() == 1
    assert stage.errors() == []
