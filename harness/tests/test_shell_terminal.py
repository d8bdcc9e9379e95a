"""The terminal's side of `shell`, without a guest: keys in, screen out, events as lines, commands."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.interactive.commands import Commands
from harness.interactive.keyboard import Command, Keyboard, ToGuest
from harness.interactive.live import line_of
from harness.interactive.screen import BURST, PAUSE, PlainScreen, Screen
from harness.plan.model import Plan, Stage
from harness.testbed.errors import TestbedError

KEYS: dict[str, tuple[bytes, list[ToGuest | Command], bytes]] = {
    "a line for the guest": (b"ls -l\r", [ToGuest(b"ls -l\r")], b""),
    "a command": (b":steps\r", [Command("steps")], b":steps\r\n"),
    "a command after a line": (b"ls\r:quit\r", [Command("quit"), ToGuest(b"ls\r")], b":quit\r\n"),
    "a colon inside a line": (b"a:b\r", [ToGuest(b"a:b\r")], b""),
    "a colon after Ctrl-C": (b"rm\x03:q\r", [Command("q"), ToGuest(b"rm\x03")], b":q\r\n"),
    "two colons are the guest's": (b"::x\r", [ToGuest(b":x\r")], b":\b \b"),
    "rubbed out": (b":stpe\x7f\x7fep 3\r", [Command("step 3")], b":stpe\b \b\b \bep 3\r\n"),
    "rubbed out to the end": (b":\x7fls\r", [ToGuest(b"ls\r")], b":\b \b"),
    "given up with Ctrl-C": (b":st\x03ls\r", [ToGuest(b"ls\r")], b":st\b \b\b \b\b \b"),
    "a character of two bytes": ("x\r:ü\x7fu\r".encode(), [Command("u"), ToGuest(b"x\r")], ":ü\b \bu\r\n".encode()),
    "nothing behind the colon": (b":\r", [Command("")], b":\r\n"),
    "a tab inside a command is nothing": (b":a\tb\r", [Command("ab")], b":ab\r\n"),
}


@pytest.mark.parametrize("piece", [1, 2, 1000])
@pytest.mark.parametrize(("typed", "expected", "echo"), KEYS.values(), ids=KEYS.keys())
def test_keys(typed: bytes, expected: list[ToGuest | Command], echo: bytes, piece: int) -> None:
    """However the bytes are cut, the guest gets the same bytes and we the same commands."""
    echoed = bytearray()
    keyboard = Keyboard(echoed.extend)
    got: list[ToGuest | Command] = []
    for start in range(0, len(typed), piece):
        got += keyboard.feed(typed[start : start + piece])
    assert [each for each in got if isinstance(each, Command)] == [e for e in expected if isinstance(e, Command)]
    assert to_guest(got) == to_guest(expected)
    assert bytes(echoed) == echo


def to_guest(said: list[ToGuest | Command]) -> bytes:
    return b"".join(each.data for each in said if isinstance(each, ToGuest))


def test_a_program_with_the_whole_screen_has_every_key() -> None:
    keyboard = Keyboard(lambda _: None)
    assert list(keyboard.feed(b"\r:wq\r", raw=True)) == [ToGuest(b"\r:wq\r")]
    assert list(keyboard.feed(b":q\r")) == [Command("q")]


class Terminal:
    """What a Screen wrote, and a clock that stands still until it is moved."""

    def __init__(self, width: int = 80) -> None:
        self.written = b""
        self.time = 100.0
        self.screen = Screen(self.write, lambda: self.time, lambda: width, dim=False)

    def write(self, data: bytes) -> None:
        self.written += data


def test_a_line_of_ours_goes_above_the_one_that_is_typed() -> None:
    terminal = Terminal()
    terminal.screen.guest(b"motd\r\n# echo he")
    terminal.screen.say("carrier down")
    assert terminal.written == b"motd\r\n# echo he" + b"\r\x1b[Kcarrier down\r\n# echo he"
    terminal.screen.guest(b"llo\r\n")
    terminal.screen.say("carrier up")
    assert terminal.written.endswith(b"llo\r\n\r\x1b[Kcarrier up\r\n")


def test_a_full_screen_program_is_not_disturbed() -> None:
    terminal = Terminal()
    terminal.screen.guest(b"\x1b[?1049hvi")
    terminal.screen.say("carrier down")
    assert b"carrier" not in terminal.written
    assert terminal.screen.full
    for piece in (b"\x1b[?10", b"49l", b"# "):  # as a channel may cut it
        terminal.screen.guest(piece)
    assert terminal.written.endswith(b"\x1b[?1049l\r\x1b[Kcarrier down\r\n# ")
    assert not terminal.screen.full


def test_too_many_lines_are_counted_and_the_count_is_told() -> None:
    terminal = Terminal()
    for number in range(BURST + 30):
        terminal.screen.live(f"frame {number}")
    assert terminal.written.count(b"frame") == BURST
    terminal.screen.catch_up()
    assert b"30 lines more" not in terminal.written, "not yet: more may be left out"
    terminal.time += PAUSE
    terminal.screen.catch_up()
    terminal.screen.catch_up()
    assert terminal.written.count(b"... and 30 lines more") == 1
    terminal.screen.live("frame again")
    assert b"frame again" in terminal.written
    terminal.screen.say("never left out")


def test_a_live_line_is_cut_to_the_terminal_and_ours_is_not() -> None:
    terminal = Terminal(width=10)
    terminal.screen.live("0123456789abc\nshort")
    terminal.screen.say("0123456789abc")
    assert "01234567…\r\nshort\r\n".encode() in terminal.written
    assert b"0123456789abc\r\n" in terminal.written


def test_without_a_terminal_lines_are_lines() -> None:
    written = bytearray()
    screen = PlainScreen(written.extend, lambda: 0.0)
    screen.guest(b"half")
    screen.say("line " * 40)
    assert bytes(written) == b"half" + b"line " * 40 + b"\n"


EVENTS: dict[str, tuple[dict[str, Any], str | None]] = {
    "a datagram": (
        {"src": "wire", "kind": "frame", "nic": "n0", "dir": "out", "sip": "198.51.100.10", "sport": 6665}
        | {"dip": "198.51.100.100", "dport": 6666, "udp_len": 50, "csum": "ok", "ip_csum": "ok", "len": 84},
        "    1.500 n0 out UDP 198.51.100.10:6665 > 198.51.100.100:6666, 42 bytes",
    ),
    "a bad checksum": (
        {"src": "wire", "kind": "frame", "nic": "n0", "dir": "in", "sip": "a", "sport": 1, "dip": "b", "dport": 2}
        | {"udp_len": 8, "csum": "bad", "ip_csum": "ok", "len": 60},
        "    1.500 n0 in  UDP a:1 > b:2, 0 bytes, csum bad",
    ),
    "an ARP request": (
        {"src": "wire", "kind": "frame", "nic": "n0", "dir": "out", "ethertype": 0x806, "len": 60}
        | {"smac": "52:54:00:00:00:01", "dmac": "ff:ff:ff:ff:ff:ff"},
        "    1.500 n0 out ARP, 60 bytes, 52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff",
    ),
    "a frame too short for a header": (
        {"src": "wire", "kind": "frame", "nic": "n0", "dir": "out", "len": 3, "malformed": "truncated"},
        "    1.500 n0 out truncated, 3 bytes, ? > ?",
    ),
    "text that a terminal would obey": (
        {"src": "console", "kind": "line", "text": "\x1b]0;owned\x07"},
        r"    1.500 console \x1b]0;owned\x07",
    ),
    "carrier": ({"src": "guest", "kind": "carrier", "nic": "n0", "up": False}, "    1.500 n0 carrier down"),
    "a wait": (
        {"src": "await", "kind": "reached", "what": "carrier", "of": "n0", "state": "up", "count": 1, "seconds": 0.5},
        "    1.500 waited 0.50 s for carrier n0 up",
    ),
    "a wait in vain": (
        {"src": "await", "kind": "timeout", "what": "event", "of": "GUEST_PANICKED", "within": 30, "seen": "count 0"},
        "    1.500 waited 30 s in vain for event GUEST_PANICKED: count 0",
    ),
    "a command's output": (
        {"src": "guest", "kind": "run", "argv": ["ls", "/"], "rc": 0, "out": "a\nb\n", "err": ""},
        "    1.500 ran ls /: status 0\n          a\n          b",
    ),
    "what nobody watches for": ({"src": "guest", "kind": "kmsg", "first": 1, "last": 1}, None),
}


@pytest.mark.parametrize(("event", "line"), EVENTS.values(), ids=EVENTS.keys())
def test_an_event_as_a_line(event: dict[str, Any], line: str | None) -> None:
    assert line_of({"t": 1.5, **event}) == line


class Hand:
    """Commands on a plan of three steps, of which the second waits until it is told and the third fails."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ran: list[int] = []
        self.go = asyncio.Event()
        self.crashed = False
        self.hidden: set[str] = set()
        stages = tuple(
            Stage(step=n, title=title, actions=()) for n, title in enumerate(("set-up", "cut", "wait", "break"))
        )
        plan = Plan.model_construct(stages=stages)
        self.commands = Commands(plan, self.run, lambda: self.crashed, self.said.append, self.hidden)

    async def run(self, stage: Stage) -> None:
        self.ran.append(stage.step)
        if stage.step == 2:
            await self.go.wait()
        if stage.step == 3:
            raise TestbedError("it broke", "mend it")

    async def do(self, *lines: str) -> str:
        """Give commands, each to its end; what was said."""
        for line in lines:
            assert self.commands.take(line)
            await self.commands.idle()
        return "\n".join(self.said)


def test_steps_one_after_the_other() -> None:
    async def work() -> None:
        hand = Hand()
        hand.go.set()
        said = await hand.do("step", "step", "step 1", "step 1-3", "steps")
        assert hand.ran == [1, 2, 1, 1, 2, 3]
        assert "step 3 failed: it broke\n  -> mend it" in said
        assert hand.said[-1] == "  1 done    cut\n  2 done    wait\n  3 failed  break"

    asyncio.run(work())


def test_a_failed_step_ends_the_row() -> None:
    async def work() -> None:
        hand = Hand()
        await hand.do("step 3")
        assert hand.ran == [3]
        assert "the steps are 1 to 3" in await hand.do("step")

    asyncio.run(work())


def test_one_step_at_a_time_and_it_can_be_stopped() -> None:
    async def work() -> None:
        hand = Hand()
        assert "no step is under way" in await hand.do("stop")
        hand.commands.take("step 2-3")
        await asyncio.sleep(0)  # let it begin
        hand.commands.take("step 1")
        assert "a step is still under way" in hand.said[-1]
        hand.commands.take("stop")
        await hand.commands.idle()
        assert hand.ran == [2], "what follows a stopped step is not run"
        assert "2 stopped wait" in await hand.do("steps")

    asyncio.run(work())


def test_a_crash_is_said() -> None:
    async def work() -> None:
        hand = Hand()
        hand.crashed = True
        assert "the guest has crashed, and its shell with it" in await hand.do("step 1")

    asyncio.run(work())


@pytest.mark.parametrize("line", ["step 0", "step 4", "step 3-2", "step 2-9"])
def test_steps_that_there_are_not(line: str) -> None:
    async def work() -> None:
        hand = Hand()
        assert "the steps are 1 to 3" in await hand.do(line)
        assert hand.ran == []

    asyncio.run(work())


@pytest.mark.parametrize("line", ["stpe", "step x", "step 1 2", "capture maybe", "quit now"])
def test_what_is_no_command(line: str) -> None:
    assert f"`:{line}` is no command" in asyncio.run(Hand().do(line))


def test_sources_can_be_hidden() -> None:
    async def work() -> None:
        hand = Hand()
        await hand.do("capture off", "console off")
        assert hand.hidden == {"wire", "console"}
        await hand.do("capture on")
        assert hand.hidden == {"console"}

    asyncio.run(work())


@pytest.mark.parametrize("line", ["quit", "q", "exit"])
def test_the_end(line: str) -> None:
    assert not Hand().commands.take(line)


def test_help_names_every_command() -> None:
    said = asyncio.run(Hand().do(""))
    for word in (":steps", ":step ", ":stop", ":quit", ":capture", ":console", "::"):
        assert word in said
