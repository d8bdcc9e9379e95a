"""Whoever keeps a run's originals: what it answers, to sense and to nonsense, and that a case never fails for it."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from harness.originals import LIMIT, PLAIN, Copies, Keeper, Server, in_child

LIKE = "0123456789abcdef"


class Asker:
    """Both ends of a connection to a server in this process."""

    def __init__(self) -> None:
        self.server = Server()
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server.copies[self.far] = set()

    def ask(self, request: object, fds: list[int] | None = None) -> Any:
        self.server.answer(self.far, request if isinstance(request, dict) else {}, fds or [])
        return json.loads(self.near.recv(LIMIT))


@pytest.fixture
def asker() -> Iterator[Asker]:
    made = Asker()
    yield made
    made.near.close()
    made.far.close()


@pytest.fixture
def nonsense() -> Iterator[int]:
    fd = os.memfd_create("job")
    os.write(fd, b'{"plan": "no plan"}')
    yield fd
    os.close(fd)


def test_an_original_is_wanted_once_several_cases_have_asked(asker: Asker) -> None:
    answers = [asker.ask({"like": LIKE}) for _ in range(PLAIN + 1)]
    assert ["none" in answer for answer in answers] == [True] * PLAIN + [False]
    assert answers[-1] == {"want": True}
    assert "none" in asker.ask({"like": "another template"})


def test_a_job_that_is_none_makes_no_original(asker: Asker, nonsense: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert asker.ask({"make": LIKE, "forkable": "/no/such/library"}, [nonsense]) == {}
    assert "cases are restored" in capfd.readouterr().err
    for _ in range(PLAIN + 2):
        answer = asker.ask({"like": LIKE})
    assert "validation error" in answer["none"], "it is not asked for again"


@pytest.mark.parametrize(
    "request_", [{}, {"like": 7}, {"make": LIKE, "forkable": "x"}, {"done": "1"}, {"quit": True}], ids=str
)
def test_nonsense_is_answered(asker: Asker, request_: dict[str, Any]) -> None:
    assert asker.ask(request_) == {"none": "not understood"}


def test_nobody_ends_what_is_not_his(asker: Asker) -> None:
    child = in_child(lambda: 0)
    assert asker.ask({"done": child}) == {}
    assert os.waitpid(child, 0)[1] == 0, "it ended by itself"


def test_where_nobody_keeps_originals_there_are_no_copies() -> None:
    assert Copies("netpoll-harness-nobody").copy(LIKE, "forkable.so", "{}") is None


def test_whoever_keeps_them_may_go() -> None:
    with Keeper() as keeper:
        copies = Copies(keeper.address)
        assert copies.copy(LIKE, "forkable.so", "{}") is None
        keeper.process.kill()
        keeper.process.wait()
        assert copies.copy(LIKE, "forkable.so", "{}") is None


def test_one_that_is_killed_before_it_has_read_its_answer_costs_the_others_nothing() -> None:
    with Keeper() as keeper:
        killed, other = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
        for each in (killed, other):
            each.connect(f"\0{keeper.address}")
        killed.send(json.dumps({"like": LIKE}).encode())
        assert select.select([killed], [], [], 20)[0], "an answer"
        killed.close()
        with other:
            other.settimeout(20)
            for _ in range(3):  # its end was seen before the last of them at the latest
                other.send(b"{}")
                assert json.loads(other.recv(LIMIT)) == {"none": "not understood"}


def test_it_ends_when_its_standard_input_does() -> None:
    keeper = Keeper()
    assert keeper.process.stdin is not None
    keeper.process.stdin.close()
    assert keeper.process.wait(20) == 0
