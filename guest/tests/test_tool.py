"""`python -m guest.netpoll` on a veth pair: against the kernel's own sockets, itself, tshark, and users who get it wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import images
from guest.netpoll.clients.netconsole.message import parse_body, parse_packet
from guest.netpoll.clients.sequence import Stream, generate
from guest.netpoll.clients.syslog import parse_5424
from guest.netpoll.middleware.pcapng import Direction
from guest.netpoll.middleware.pcapng_read import read_file
from guest.tests.own_namespace import KERNEL_IP, KERNEL_MAC, OUR_IP, OUR_MAC, Namespace, own_namespace

pytestmark = pytest.mark.netns

TOOL = [sys.executable, "-m", "guest.netpoll"]
OURS = f"6665@{OUR_IP}/ours,6666@{KERNEL_IP}/{KERNEL_MAC}"
THEIRS = f"6666@{KERNEL_IP}/theirs,6665@{OUR_IP}/{OUR_MAC}"

RECEIVE = f"""
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("{KERNEL_IP}", 6666))
sock.settimeout(20)
print("ready", flush=True)
for _ in range(int(sys.argv[1])):
    print(sock.recv(65536).hex())
"""

SEND = f"""
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("{KERNEL_IP}", 6666))
for line in sys.stdin:
    sock.sendto(bytes.fromhex(line), ("{OUR_IP}", 6665))
"""

ASK = f"""
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
for word in sys.argv[1:]:
    sock.sendto(word.encode(), ("{OUR_IP}", 6665))
    print(*sock.recvfrom(65536))
"""


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with own_namespace() as namespace:
        yield namespace


class Running:
    """A command of the tool that has said it is ready."""

    def __init__(self, ns: Namespace, *arguments: str) -> None:
        self.process = ns.popen([*TOOL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        self.first = self.process.stderr.readline().decode()

    def end(self, timeout: float = 30) -> tuple[int, list[str], str]:
        """Exit code, lines printed, standard error."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out.decode().splitlines(), err.decode()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def kernel_receives(ns: Namespace, count: int, send: Sequence[str], stdin: bytes | None = None) -> list[bytes]:
    """What a socket of the kernel gets while the tool sends; the tool must succeed."""
    with ns.popen([sys.executable, "-c", RECEIVE, str(count)], stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == b"ready\n"
        done = ns.run([*TOOL, "send", OURS, *send], input=stdin)
        assert (done.returncode, done.stderr.count(b"\n")) == (0, 1), done.stderr
        return [bytes.fromhex(line.decode()) for line in receiver.stdout]


def kernel_sends(ns: Namespace, payloads: Sequence[bytes]) -> None:
    lines = "".join(payload.hex() + "\n" for payload in payloads)
    done = ns.run([sys.executable, "-c", SEND], input=lines.encode())
    assert done.returncode == 0, done.stderr


class TestSend:
    """The kernel checks addresses and checksums; what its socket gives out arrived right."""

    def test_lines_given(self, ns: Namespace) -> None:
        assert kernel_receives(ns, 2, ["one", "two words"]) == [b"one\n", b"two words\n"]

    def test_lines_from_standard_input(self, ns: Namespace) -> None:
        """Empty lines, no last newline, and bytes that are no text go out as they came in."""
        assert kernel_receives(ns, 3, [], b"a\n\n\xff\xfe") == [b"a\n", b"\n", b"\xff\xfe\n"]

    def test_count_repeats_given_lines_and_limits_input(self, ns: Namespace) -> None:
        assert kernel_receives(ns, 3, ["--count", "3", "a", "b"]) == [b"a\n", b"b\n", b"a\n"]
        assert kernel_receives(ns, 1, ["--count", "1"], b"x\ny\n") == [b"x\n"]

    def test_lines_may_look_like_options(self, ns: Namespace) -> None:
        assert kernel_receives(ns, 1, ["--interval", "0", "--", "--count"]) == [b"--count\n"]

    def test_netconsole_plain(self, ns: Namespace) -> None:
        [packet] = kernel_receives(ns, 1, ["--netconsole", "plain", "hello"])
        assert packet.startswith(b"[")
        assert packet.endswith(b"] hello\n")

    def test_netconsole_extended(self, ns: Namespace) -> None:
        options = ["--netconsole", "ext", "--release", "--userdata", "foo=a=b", "--sysdata", "cpu,msgid"]
        packets = kernel_receives(ns, 2, [*options, "--severity", "4", "--facility", "3", "one", "two"])
        messages = [parse_body(*parse_packet(packet)) for packet in packets]
        assert [(m.seq, m.text) for m in messages] == [(0, "one"), (1, "two")]
        assert messages[1].pairs == (("foo", "a=b"), ("cpu", "0"), ("msgid", "2"))
        assert (messages[0].header.level, messages[0].header.release) == (28, os.uname().release)

    def test_syslog(self, ns: Namespace) -> None:
        [packet] = kernel_receives(ns, 1, ["--syslog", "--severity", "2", "--facility", "4", "héllo"])
        message = parse_5424(packet)
        assert (message.pri, message.app_name, message.text) == (34, "netpoll", "héllo")
        assert message.timestamp is not None

    def test_sysrq(self, ns: Namespace) -> None:
        assert kernel_receives(ns, 1, ["--sysrq", "sub"]) == [b"sub\n"]

    def test_stream(self, ns: Namespace) -> None:
        payloads = kernel_receives(ns, 50, ["--stream", "5", "--count", "50", "--length", "20-90"])
        assert payloads == list(generate(Stream(5, 50, 20, 90)))

    def test_quiet(self, ns: Namespace) -> None:
        assert ns.run([*TOOL, "send", OURS, "-q", "x"]).stderr == b""


class TestListen:
    """Datagrams of the kernel's own socket. `--trap` keeps our kernel's other traffic from them, and answers ARP."""

    def listen(self, ns: Namespace, *arguments: str) -> Running:
        return Running(ns, "listen", OURS, "--trap", "--timeout", "20", *arguments)

    def test_text(self, ns: Namespace) -> None:
        with self.listen(ns, "--count", "2") as listener:
            kernel_sends(ns, [b"first\nsec", b"ond\n"])
            assert listener.end()[:2] == (0, [f"{KERNEL_IP} first", f"{KERNEL_IP} second"])

    def test_netconsole_with_a_gap_and_fragments(self, ns: Namespace) -> None:
        packets = [
            b"6,10,1500000,-;before\n",
            b"6,12,1500001,-,ncfrag=0/12;in pie",
            b"6,12,1500001,-,ncfrag=6/12;ces, \n",
            b"6,13,1500002,-;after\n",
        ]
        with self.listen(ns, "--count", "3", "--strict") as listener:
            kernel_sends(ns, packets)
            code, lines, errors = listener.end()
        assert lines == [
            f"{KERNEL_IP} [    1.50000{n}] {text}" for n, text in enumerate(["before", "in pieces, ", "after"])
        ]
        assert f"{KERNEL_IP}: missing 11\n" in errors
        assert "4 datagrams, 3 messages, 1 missing" in errors
        assert code == 1

    def test_syslog(self, ns: Namespace) -> None:
        with self.listen(ns, "--count", "1") as listener:
            kernel_sends(ns, [b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 proc 8710 - - text"])
            line = f"{KERNEL_IP} 20.5 2003-08-24T05:14:15.000003-07:00 192.0.2.1 proc[8710]: text"
            assert listener.end()[:2] == (0, [line])

    def test_json(self, ns: Namespace) -> None:
        with self.listen(ns, "--count", "2", "--json") as listener:
            kernel_sends(ns, [b"6,1,0,-;a\n k=v\n", b"6,3,0,-;b\n"])
            events = [json.loads(line) for line in listener.end()[1]]
        assert [event["event"] for event in events] == ["message", "gap", "message"]
        assert (events[0]["text"], events[0]["pairs"], events[0]["from"]) == ("a", [["k", "v"]], KERNEL_IP)
        assert (events[1]["first"], events[1]["last"]) == (2, 2)

    def test_severity(self, ns: Namespace) -> None:
        with self.listen(ns, "--count", "1", "--max-severity", "3") as listener:
            kernel_sends(ns, [b"6,1,0,-;info\n", b"3,2,0,-;error\n"])
            assert listener.end()[1] == [f"{KERNEL_IP} [    0.000000] error"]

    def test_stream(self, ns: Namespace) -> None:
        """Short ones, so that a socket buffer holds all of them, whenever the listener gets its turn."""
        with self.listen(ns, "--stream", "8", "--count", "300", "--length", "20-200", "--strict") as listener:
            kernel_sends(ns, list(generate(Stream(8, 300, 20, 200))))
            code, _, errors = listener.end()
        assert (code, "300 of 300 datagrams; missing []" in errors) == (0, True)

    def test_stream_incomplete(self, ns: Namespace) -> None:
        payloads = list(generate(Stream(8, 10)))
        del payloads[4]
        with Running(ns, "listen", OURS, "--trap", "--timeout", "1", "--stream", "8", "--count", "10") as listener:
            kernel_sends(ns, payloads)
            code, _, errors = listener.end()
        assert (code, "9 of 10 datagrams; missing [[4, 4]]" in errors) == (1, True)

    def test_time_runs_out(self, ns: Namespace) -> None:
        assert ns.run([*TOOL, "listen", OURS, "--count", "1", "--timeout", "0.2"]).returncode == 1
        assert ns.run([*TOOL, "listen", OURS, "--timeout", "0.2"]).returncode == 0

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_with_a_summary(self, ns: Namespace, number: int) -> None:
        with Running(ns, "listen", OURS, "--trap") as listener:
            kernel_sends(ns, [b"x\n"])
            assert listener.process.stdout is not None
            assert listener.process.stdout.readline() == f"{KERNEL_IP} x\n".encode()
            listener.process.send_signal(number)
            code, _, errors = listener.end()
        assert (code, "1 datagrams" in errors) == (0, True)

    def test_any_peer(self, ns: Namespace) -> None:
        with Running(ns, "listen", f"6665@{OUR_IP}/ours,@0.0.0.0/", "--trap", "--count", "1") as listener:
            kernel_sends(ns, [b"x\n"])
            assert listener.end()[1] == [f"{KERNEL_IP} x"]

    def test_the_tool_hears_itself(self, ns: Namespace) -> None:
        with Running(
            ns, "listen", THEIRS, "--stream", "1", "--count", "500", "--timeout", "20", "--strict"
        ) as listener:
            sender = ns.run([*TOOL, "send", OURS, "--stream", "1", "--count", "500"])
            assert b"500 messages, 500 datagrams sent" in sender.stderr
            assert listener.end()[0] == 0


class TestAnswer:
    def test_arp_and_echo(self) -> None:
        """In a namespace of its own, where the kernel has to ask for our MAC."""
        with (
            own_namespace(neighbour=False) as ns,
            Running(ns, "answer", f"6665@{OUR_IP}/ours,@0.0.0.0/", "--count", "2", "--timeout", "20") as answerer,
        ):
            done = ns.run([sys.executable, "-c", ASK, "ping", "pong"])
            answers = [f"b'{word}' ('{OUR_IP}', 6665)" for word in ("ping", "pong")]
            assert done.stdout.decode().splitlines() == answers, done.stderr
            code, _, errors = answerer.end()
        assert (code, "2 datagrams echoed" in errors) == (0, True)

    def test_only_the_configured_peer_is_answered(self, ns: Namespace) -> None:
        options = f"6665@{OUR_IP}/ours,@10.9.0.77/"
        with Running(ns, "answer", options, "--timeout", "1", "--count", "1") as answerer:
            kernel_sends(ns, [b"x"])
            code, _, errors = answerer.end()
        assert (code, "0 datagrams echoed, 0 received" in errors) == (1, True)


class TestSysrq:
    """A pipe stands for the trigger of this machine, which no test may press; test_sysrq_guest.py presses a guest's."""

    def test_keys_are_pressed_one_a_write(self, ns: Namespace, tmp_path: Path) -> None:
        trigger = tmp_path / "trigger"
        os.mkfifo(trigger)
        pressed = os.open(trigger, os.O_RDONLY | os.O_NONBLOCK)
        listener = [f"6665@{KERNEL_IP}/theirs,6666@{OUR_IP}/", "--trigger", str(trigger), "--allow", "tw"]
        with Running(ns, "sysrq", *listener, "--count", "2", "--timeout", "20") as taker:
            for source in (f"6666@{OUR_IP}", "6666@10.9.0.66", f"7777@{OUR_IP}"):
                sent = ns.run([*TOOL, "send", f"{source}/ours,6665@{KERNEL_IP}/{KERNEL_MAC}", "--sysrq", "t"])
                assert sent.returncode == 0, sent.stderr
            ns.run([*TOOL, "send", f"6666@{OUR_IP}/ours,6665@{KERNEL_IP}/{KERNEL_MAC}", "--sysrq", "bw"])
            code, _, errors = taker.end()
        assert (code, os.read(pressed, 99)) == (0, b"tw"), errors
        os.close(pressed)

    def test_no_trigger_is_3_and_no_peer_is_2(self, ns: Namespace) -> None:
        missing = ns.run([*TOOL, "sysrq", OURS, "--trigger", "/nowhere/trigger"])
        anybody = ns.run([*TOOL, "sysrq", f"@{OUR_IP}/ours,@0.0.0.0/", "--trigger", "/dev/null"])
        assert (missing.returncode, anybody.returncode) == (3, 2)
        assert b"/nowhere/trigger" in missing.stderr
        assert b"one peer only" in anybody.stderr


class TestTrace:
    def test_both_ways(self, tmp_path: Path) -> None:
        """In a namespace of its own, where the kernel has yet to ask for our MAC."""
        path = tmp_path / "t.pcapng"
        with (
            own_namespace(neighbour=False) as ns,
            Running(ns, "trace", "theirs", str(path), "--count", "6", "--timeout", "20") as tracer,
        ):
            with Running(ns, "answer", f"6665@{OUR_IP}/ours,@0.0.0.0/", "--count", "2", "--timeout", "20") as answerer:
                assert ns.run([sys.executable, "-c", ASK, "a", "b"]).returncode == 0
                assert answerer.end()[0] == 0
            code, _, errors = tracer.end()
        assert (code, "6 frames" in errors) == (0, True)
        packets = read_file(path)
        kinds = [(int.from_bytes(packet.data[12:14], "big"), packet.direction) for packet in packets]
        out, back = Direction.OUTBOUND, Direction.INBOUND
        assert sorted(kinds) == sorted([(0x0806, out), (0x0806, back), *[(0x0800, out), (0x0800, back)] * 2])
        assert [p.timestamp for p in packets] == sorted(p.timestamp for p in packets)
        assert {packet.interface.mac.hex(":") for packet in packets} == {KERNEL_MAC}

    def test_only_the_peers_frames(self, tmp_path: Path) -> None:
        """Also in a namespace of its own: a kernel that knows the peer asks after it from time to time."""
        path = tmp_path / "t.pcapng"
        with (
            own_namespace() as ns,
            Running(ns, "trace", f"@/theirs,@{OUR_IP}/", str(path), "--count", "1", "--timeout", "20") as tracer,
        ):
            ns.run([*TOOL, "send", f"@10.9.0.99/ours,@{KERNEL_IP}/{KERNEL_MAC}", "not this"])
            ns.run([*TOOL, "send", OURS, "this"])
            assert tracer.end()[0] == 0
        assert [packet.data[42:] for packet in read_file(path)] == [b"this\n"]

    def test_killed_it_leaves_what_it_saw(self, ns: Namespace, tmp_path: Path) -> None:
        path = tmp_path / "t.pcapng"
        with Running(ns, "trace", "theirs", str(path)) as tracer:
            ns.run([*TOOL, "send", OURS, "--stream", "1", "--count", "200"])
            while path.stat().st_size < 100_000:
                assert tracer.process.poll() is None
            tracer.process.kill()
        assert len(read_file(path)) > 50

    def test_the_capture_of_a_session(self, ns: Namespace, tmp_path: Path, tools: images.Tools) -> None:
        path = tmp_path / "t.pcapng"
        done = ns.run([*TOOL, "send", OURS, "--pcapng", str(path), "--netconsole", "ext", "one", "x" * 3000])
        assert done.returncode == 0, done.stderr
        command = [*tools.argv("tshark"), "-r", str(path)]
        command += ["-Y", "udp && !icmp"]  # the kernel has no such port, and says so
        command += ["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
        command += ["-T", "fields", "-E", "separator=|", "-e", "ip.checksum.status", "-e", "udp.checksum.status"]
        command += ["-e", "udp.length", "-e", "_ws.malformed", "-e", "frame.packet_flags_direction"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert len(shown) == 5  # one, and four fragments
        assert all(line.startswith("1|1|") and line.endswith("||0x00000002") for line in shown)


WRONG_USE = {
    "no command": [],
    "unknown command": ["shout"],
    "no options": ["send"],
    "not an option string": ["send", "eth0", "x"],
    "target missing": ["send", "@/ours,@/", "x"],
    "port too large": ["send", f"70000@/ours,@{KERNEL_IP}/", "x"],
    "two families": ["send", f"@fe80::1/ours,@{KERNEL_IP}/", "x"],
    "broken MAC": ["send", f"@/ours,@{KERNEL_IP}/02:03", "x"],
    "two forms": ["send", OURS, "--sysrq", "--syslog", "x"],
    "unknown option after a line": ["send", OURS, "x", "--shout"],
    "lines to listen": ["listen", OURS, "x"],
    "count 0": ["listen", OURS, "--count", "0"],
    "timeout of words": ["listen", OURS, "--timeout", "soon"],
    "not sysrq keys": ["send", OURS, "--sysrq", "B"],
    "userdata without netconsole": ["send", OURS, "--userdata", "a=b", "x"],
    "userdata on plain netconsole": ["send", OURS, "--netconsole", "plain", "--userdata", "a=b", "x"],
    "userdata without =": ["send", OURS, "--netconsole", "ext", "--userdata", "a", "x"],
    "stream without count": ["send", OURS, "--stream", "1"],
    "stream of headers only": ["send", OURS, "--stream", "1", "--count", "5", "--length", "5-9"],
    "longer than the MTU": ["send", OURS, "x" * 1500],
}


@pytest.mark.parametrize("arguments", WRONG_USE.values(), ids=WRONG_USE.keys())
def test_wrong_use_is_2_and_says_why(ns: Namespace, arguments: list[str]) -> None:
    done = ns.run([*TOOL, *arguments])
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert 0 < len(done.stderr.splitlines()[-1]) < 400


NO_DEVICE = {
    "no such interface": (["send", f"@/nope0,@{KERNEL_IP}/", "x"], "there is no interface 'nope0'"),
    "trace of none": (["trace", "nope0", "/dev/null"], "there is no interface 'nope0'"),
    "no address": (["send", f"@/ours,@{KERNEL_IP}/", "x"], "give the source address"),
    "no carrier": (
        ["send", f"@{OUR_IP}/alone,@{KERNEL_IP}/", "--require-carrier", "--carrier-timeout", "0.3", "x"],
        "no carrier after 0.3 s",
    ),
    "capture nowhere": (["listen", OURS, "--pcapng", "/nowhere/x"], "/nowhere/x"),
}

ALONE = """
from pyroute2 import IPRoute
with IPRoute() as ip:
    ip.link("add", ifname="alone", kind="veth", peer="other")
    ip.link("set", index=ip.link_lookup(ifname="alone")[0], state="up")
"""


@pytest.mark.parametrize(("arguments", "why"), NO_DEVICE.values(), ids=NO_DEVICE.keys())
def test_no_usable_device_is_3_and_says_what_to_do(arguments: list[str], why: str) -> None:
    with own_namespace() as ns:
        assert ns.run([sys.executable, "-c", ALONE]).returncode == 0
        done = ns.run([*TOOL, *arguments])
    assert done.returncode == 3, done.stderr
    assert why in done.stderr.decode().splitlines()[-1]
    assert b"Traceback" not in done.stderr


def test_without_the_right_it_is_3_and_says_which() -> None:
    with own_namespace() as ns:
        done = ns.run(["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", *TOOL, "listen", OURS])
    assert done.returncode == 3, done.stderr
    assert "CAP_NET_RAW" in done.stderr.decode()


def test_an_interface_that_goes_away_is_3() -> None:
    with own_namespace() as ns, Running(ns, "listen", OURS) as listener:
        gone = "from pyroute2 import IPRoute; ip = IPRoute(); ip.link('del', index=ip.link_lookup(ifname='theirs')[0])"
        assert ns.run([sys.executable, "-c", gone]).returncode == 0
        code, _, errors = listener.end()
    assert (code, "ours went away" in errors) == (3, True), errors


def test_help_names_the_exit_codes(ns: Namespace) -> None:
    done = ns.run([*TOOL, "--help"])
    assert done.returncode == 0
    assert b"exit codes" in done.stdout


def test_a_reader_who_leaves_is_no_error(ns: Namespace) -> None:
    with Running(ns, "listen", OURS, "--trap") as listener:
        assert listener.process.stdout is not None
        listener.process.stdout.close()
        kernel_sends(ns, [b"x\n", b"y\n"])
        assert listener.process.wait(timeout=25) == 0
