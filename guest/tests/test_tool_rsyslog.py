"""A real log server receives our syslog and our netconsole: rsyslogd in a namespace, sent to by the tool over a veth."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import images
from guest.tests.own_namespace import KERNEL_IP, KERNEL_MAC, OUR_IP, Namespace, own_namespace

pytestmark = pytest.mark.netns

Exchange = Callable[..., list[dict[str, str]]]

OPTIONS = f"6665@{OUR_IP}/ours,514@{KERNEL_IP}/{KERNEL_MAC}"
PROPERTIES = {
    "raw": "rawmsg",
    "pri": "pri",
    "host": "hostname",
    "app": "app-name",
    "procid": "procid",
    "msgid": "msgid",
    "sd": "structured-data",
    "text": "msg",
    "from": "fromhost-ip",
}

CONFIG = """
global(workDirectory="{folder}" parser.escapeControlCharactersOnReceive="off")
module(load="imudp")
template(name="json" type="list" option.jsonf="on") {{
{properties}
}}
ruleset(name="all") {{ action(type="ompipe" pipe="{folder}/received" template="json") }}
input(type="imudp" address="{ip}" port="514" ruleset="all")
"""

READY = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('{ip}', 514))"


@contextmanager
def rsyslog(ns: Namespace, folder: Path, rsyslogd: Sequence[str]) -> Iterator[int]:
    """rsyslogd on KERNEL_IP:514, ready; the pipe that it writes one JSON line a message to."""
    properties = "\n".join(f'  property(outname="{k}" name="{v}" format="jsonf")' for k, v in PROPERTIES.items())
    config = folder / "rsyslog.conf"
    config.write_text(CONFIG.format(folder=folder, properties=properties, ip=KERNEL_IP))
    os.mkfifo(folder / "received")
    pipe = os.open(folder / "received", os.O_RDWR | os.O_NONBLOCK)  # for writing too, so that it never ends
    process = ns.popen([*rsyslogd, "-n", "-f", str(config), "-i", str(folder / "pid")], stderr=subprocess.PIPE)
    try:
        wait_until_bound(ns, process)
        yield pipe
    finally:
        process.kill()
        process.communicate()
        os.close(pipe)


def wait_until_bound(ns: Namespace, process: subprocess.Popen[bytes]) -> None:
    """Until somebody has port 514: a bind of ours fails from then on."""
    deadline = time.monotonic() + 20
    while ns.run([sys.executable, "-c", READY.format(ip=KERNEL_IP)]).returncode == 0:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "rsyslogd did not bind its port within 20 s"


def read_messages(pipe: int, count: int) -> list[dict[str, str]]:
    """The first `count` messages that rsyslogd writes."""
    written = b""
    while written.count(b"\n") < count:
        ready, _, _ = select.select([pipe], [], [], 20)
        assert ready, f"{count} messages awaited, {written!r} came"
        written += os.read(pipe, 65536)
    return [json.loads(line) for line in written.splitlines()]


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with own_namespace() as namespace:
        yield namespace


@pytest.fixture
def exchange(ns: Namespace, tmp_path: Path, tools: images.Tools) -> Exchange:
    """Send with the tool so that `count` messages come; what rsyslogd made of them."""

    def sent(count: int, *arguments: str) -> list[dict[str, str]]:
        with rsyslog(ns, tmp_path, tools.argv("rsyslogd")) as pipe:
            done = ns.run([sys.executable, "-m", "guest.netpoll", "send", OPTIONS, *arguments])
            assert done.returncode == 0, done.stderr
            return read_messages(pipe, count)

    return sent


def test_rfc_5424(exchange: Exchange) -> None:
    sent = ["--syslog", "--severity", "2", "--facility", "16", "first", 'with "quotes" and [brackets]', "schön"]
    messages = exchange(3, *sent)
    assert [m["text"].removeprefix("\ufeff") for m in messages] == ["first", 'with "quotes" and [brackets]', "schön"]
    assert {(m["pri"], m["app"], m["from"], m["msgid"]) for m in messages} == {("130", "netpoll", OUR_IP, "-")}
    assert messages[0]["procid"].isdigit()


def test_rfc_3164(exchange: Exchange) -> None:
    [message] = exchange(1, "--syslog-bsd", "--severity", "6", "--facility", "3", "hello there")
    assert (message["pri"], message["app"], message["text"].strip()) == ("30", "netpoll", "hello there")
    assert message["host"] not in ("", "-", OUR_IP), "the host name of the message, not the address it came from"


def test_plain_netconsole(exchange: Exchange) -> None:
    """A kernel's line has no PRI: user.notice, and the whole line as text."""
    messages = exchange(2, "--netconsole", "plain", "eth0: link up", "x" * 900)
    assert [m["pri"] for m in messages] == ["13", "13"]
    assert messages[0]["text"].endswith("] eth0: link up")
    assert messages[1]["raw"].rstrip("\n").endswith("] " + "x" * 900)


def test_extended_netconsole(exchange: Exchange) -> None:
    """rsyslogd knows nothing of the header; the raw message is ours, but for the last newline."""
    messages = exchange(2, "--netconsole", "ext", "--userdata", "rack=7", "one", "two")
    assert [m["raw"].split(";", 1)[1] for m in messages] == ["one\n rack=7", "two\n rack=7"]
    assert [m["raw"].split(",")[1] for m in messages] == ["0", "1"]
