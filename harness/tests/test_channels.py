"""The three control channels on real guests: the same programs, files and refusals over each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from harness.observe.events import Clock
from harness.plan.compile import compile_plan, machine_plan
from harness.plan.model import Ask
from harness.run import Bench, load
from harness.scenario.errors import ScenarioErrors
from harness.scenario.load import load as scenario_of
from harness.scenario.model import Guest, Nic
from harness.testbed import template
from harness.testbed.channels import Channel, ChannelName, Login, bond
from harness.testbed.channels.agent import CHUNK
from harness.testbed.channels.doors import open_channel
from harness.testbed.channels.guest_agent import GuestAgent, synchronise
from harness.testbed.channels.ssh import Ssh
from harness.testbed.errors import GuestRefused, GuestSilent, TestbedError
from harness.testbed.machine import Machine, Observers
from harness.testbed.qemu import Boot
from harness.testbed.template import Ingredients, clone_argv, clone_memory, restore

CHANNELS: tuple[ChannelName, ...] = ("agent", "qemu-guest-agent", "ssh")
QUIET = Observers(lambda *_: None, lambda *_: None, lambda *_: None)
Work = Callable[[Machine, Ingredients], Awaitable[None]]


@pytest.fixture
def on_a_guest(bench: Bench, testcases: Path, tmp_path: Path) -> Callable[[Work], None]:
    """Run something on a fresh clone."""
    plan = load([testcases / "crash" / "panic.yaml"], bench.options)[0]
    job = bench.prepare(plan)
    made = template.find(bench.options.cache, job.ingredients)
    assert made is not None

    async def conduct(work: Work) -> None:
        with clone_memory(made, False) as (memory, inherit):
            start = Machine.start(
                lambda channels: clone_argv(job.ingredients, memory, channels),
                QUIET,
                Clock.start(),
                tmp_path / "console",
                inherit,
            )
            async with start as guest:
                await restore(guest, made)
                await guest.alive(guest.agent.ask("hello"), 30, "hello")
                await work(guest, job.ingredients)

    return lambda work: asyncio.run(conduct(work))


@contextlib.asynccontextmanager
async def opened(name: ChannelName, guest: Machine, ingredients: Ingredients) -> AsyncIterator[Channel]:
    channel = await open_channel(name, guest, ingredients.login)
    try:
        yield channel
    finally:
        await channel.close()


@pytest.mark.guest
@pytest.mark.parametrize("name", CHANNELS)
def test_programs(on_a_guest: Callable[[Work], None], name: ChannelName) -> None:
    async def work(guest: Machine, ingredients: Ingredients) -> None:
        async with opened(name, guest, ingredients) as channel:
            assert channel.name == name
            ran = await channel.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
            assert (ran.rc, ran.out, ran.err) == (3, "out\n", "err\n")
            with pytest.raises(GuestRefused, match="status 3: err"):
                ran.checked()
            killed = await channel.run(["sh", "-c", "kill -KILL $$"])
            assert killed.rc == (-1 if name == "ssh" else -9)
            spaced = await channel.run(["printf", "%s|", "two words", "$HOME", "'quoted'", "", "*"])
            assert spaced.out == "two words|$HOME|'quoted'||*|"
            assert (await channel.run(["cat"])).out == "", "a program must find its input at its end"
            noisy = await channel.run(
                ["sh", "-c", "head -c 3000000 /dev/zero >&2; head -c 3000000 /dev/zero; echo end"]
            )
            assert (noisy.rc, len(noisy.out), len(noisy.err)) == (0, 65536, 65536)
            with pytest.raises(GuestRefused, match="no-such-program"):
                await channel.run(["no-such-program"])
            with pytest.raises(GuestSilent, match="sleep"):
                await channel.run(["sleep", "1000"], within=1)
            assert (await channel.run(["echo", "alive"])).out == "alive\n"

    on_a_guest(work)


@pytest.mark.guest
@pytest.mark.parametrize("name", CHANNELS)
def test_files(on_a_guest: Callable[[Work], None], name: ChannelName, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("channels", "channels.ssh"):
        monkeypatch.setattr(f"harness.testbed.{module}.FILE_LIMIT", 1 << 20)
    data = random.Random(7).randbytes(2 * CHUNK + 12345)

    async def work(guest: Machine, ingredients: Ingredients) -> None:
        async with opened(name, guest, ingredients) as channel:
            await channel.put("/tmp/large", data, mode=0o640)
            assert await channel.get("/tmp/large") == data
            assert (await channel.run(["stat", "-c", "%a", "/tmp/large"])).out == "640\n"
            await channel.put("/tmp/large", b"small")
            assert await channel.get("/tmp/large") == b"small"
            await channel.put("/tmp/empty", b"")
            assert await channel.get("/tmp/empty") == b""
            await channel.put("/proc/sys/kernel/printk", b"4\n")
            assert (await channel.get("/proc/sys/kernel/printk")).split()[0] == b"4"
            with pytest.raises(GuestRefused, match="/tmp/none"):
                await channel.get("/tmp/none")
            with pytest.raises(GuestRefused, match="/no/folder/file"):
                await channel.put("/no/folder/file", b"x")
            with pytest.raises(GuestRefused):  # EINVAL of the file itself, after it was opened
                await channel.put("/sys/class/net/bonding_masters", b"nonsense")
            with pytest.raises(GuestRefused, match="longer than 1 MiB"):
                await channel.get("/dev/zero")
            assert (await channel.run(["echo", "alive"])).out == "alive\n"

    on_a_guest(work)


async def two_nics(guest: Machine) -> list[str]:
    """Hot-plugged, without a network behind them; their MACs."""
    macs = ["52:54:00:6e:70:01", "52:54:00:6e:70:02"]
    for number, mac in enumerate(macs):
        await guest.qmp.execute("netdev_add", {"type": "hubport", "hubid": number, "id": f"net{number}"})
        nic = {"driver": "virtio-net-pci", "netdev": f"net{number}", "mac": mac, "id": f"nic{number}", "romfile": ""}
        await guest.qmp.execute("device_add", nic)
        await guest.agent.ask("nic_wait", {"id": f"n{number}", "mac": mac}, within=20)
    return macs


MODES = ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"]


@pytest.mark.guest
@pytest.mark.parametrize("name", ["qemu-guest-agent", "ssh"])
def test_every_mode_of_bond(on_a_guest: Callable[[Work], None], name: ChannelName) -> None:
    """One after the other, from the same two NICs."""

    async def work(guest: Machine, ingredients: Ingredients) -> None:
        macs = await two_nics(guest)
        async with opened(name, guest, ingredients) as channel:
            for number, mode in enumerate(MODES):
                await bond.create(channel, f"bond{number}", mode, macs)
                knobs = f"/sys/class/net/bond{number}/bonding"
                assert (await channel.get(f"{knobs}/mode")).split() == [mode.encode(), str(number).encode()]
                assert len((await channel.get(f"{knobs}/slaves")).split()) == 2
                await channel.put("/sys/class/net/bonding_masters", f"-bond{number}".encode())

    on_a_guest(work)


async def reads(channel: Channel, path: str, wanted: bytes, within: float = 15) -> None:
    """A file whose content comes to be this: the kernel's link watch runs when it has time."""
    deadline = time.monotonic() + within
    while (said := (await channel.get(path)).strip()) != wanted:
        assert time.monotonic() < deadline, f"{path} is {said!r} after {within:g} s, not {wanted!r}"


@pytest.mark.guest
@pytest.mark.parametrize("name", CHANNELS)
def test_a_bond(on_a_guest: Callable[[Work], None], name: ChannelName) -> None:
    """What the kernel's driver says of its bond is compared with what was asked for."""

    async def work(guest: Machine, ingredients: Ingredients) -> None:
        macs = await two_nics(guest)
        async with opened(name, guest, ingredients) as channel:
            names = await bond.interfaces(channel)
            options = {"primary": macs[1], "fail_over_mac": "active"}
            await bond.create(channel, "bond7", "active-backup", macs, 50, options)
            assert (await guest.agent.ask("bond_known", {"id": "bond7"}))["ifname"] == "bond7"
            said = (await channel.get("/proc/net/bonding/bond7")).decode()
            assert (await bond.interfaces(channel)).items() >= names.items()
            await reads(channel, "/sys/class/net/bond7/operstate", b"up")
            with pytest.raises(GuestRefused, match="no interface with MAC"):
                await bond.create(channel, "bond8", "802.3ad", ["52:54:00:00:00:99"])
        assert "Bonding Mode: fault-tolerance (active-backup) (fail_over_mac active)" in said
        assert "MII Polling Interval (ms): 50" in said
        assert f"Primary Slave: {names[macs[1]]}" in said
        assert [f"Slave Interface: {names[mac]}" in said for mac in macs] == [True, True]

    on_a_guest(work)


@pytest.mark.guest
def test_the_guest_agent_speaks_the_protocol_of_qmp(on_a_guest: Callable[[Work], None]) -> None:
    async def work(guest: Machine, ingredients: Ingredients) -> None:
        async with opened("qemu-guest-agent", guest, ingredients) as channel:
            assert isinstance(channel, GuestAgent)
            assert await channel.execute("guest-sync", {"id": 4711}) == 4711
            supported = {each["name"] for each in (await channel.execute("guest-info"))["supported_commands"]}
            assert {"guest-exec", "guest-file-open", "guest-network-get-interfaces"} <= supported
            links = await channel.execute("guest-network-get-interfaces")
            assert "lo" in {link["name"] for link in links}
            with pytest.raises(GuestRefused, match="guest-no-such-command"):
                await channel.execute("guest-no-such-command")
            answers = await asyncio.gather(*(channel.execute("guest-sync", {"id": n}) for n in range(20)))
            assert answers == list(range(20))

    on_a_guest(work)


@pytest.mark.guest
def test_a_guest_agent_that_never_was_started_is_named(on_a_guest: Callable[[Work], None]) -> None:
    async def work(guest: Machine, _ingredients: Ingredients) -> None:
        with pytest.raises(GuestSilent, match="is qemu-ga running in the guest"):
            await GuestAgent(guest.ports["guest_agent"]).open(within=0.5)

    on_a_guest(work)


def forged(login: Login, _folder: Path) -> Login:
    """One bit of the host key is another."""
    kind, key = login.host_key.split()[:2]
    return replace(login, host_key=f"{kind} {key[:-8]}{'B' if key[-8] == 'A' else 'A'}{key[-7:]}")


def of_another_kind(login: Login, _folder: Path) -> Login:
    other = paramiko.ECDSAKey.generate()
    return replace(login, host_key=f"{other.get_name()} {other.get_base64()}")


def stranger(login: Login, folder: Path) -> Login:
    """A key that nobody in the guest has heard of."""
    paramiko.ECDSAKey.generate().write_private_key_file(str(folder / "key"))
    return replace(login, key=folder / "key")


WRONG_LOGINS = {
    "another host key": (forged, TestbedError, "is not the one we expect"),
    "a host key of another kind": (of_another_kind, TestbedError, "no host key of the kind we expect"),
    "another client key": (stranger, GuestRefused, "refused the key"),
    "another user": (lambda login, _: replace(login, user="nobody"), GuestRefused, "refused the key"),
    "no client key": (
        lambda login, _: replace(login, key=Path("/no/key")),
        TestbedError,
        "/no/key: no such private key",
    ),
    "no key at all": (lambda login, _: replace(login, key=Path("/etc/passwd")), TestbedError, "as a private key"),
}


@pytest.mark.guest
@pytest.mark.parametrize(("change", "error", "match"), WRONG_LOGINS.values(), ids=WRONG_LOGINS.keys())
def test_ssh_knows_whom_it_talks_to(
    on_a_guest: Callable[[Work], None],
    tmp_path: Path,
    change: Callable[[Login, Path], Login],
    error: type[Exception],
    match: str,
) -> None:
    async def work(guest: Machine, ingredients: Ingredients) -> None:
        assert ingredients.login is not None
        with pytest.raises(error, match=match):
            await open_channel("ssh", guest, change(ingredients.login, tmp_path))
        log = await guest.agent.ask("run", {"argv": ["cat", "/run/sshd.log"], "may_fail": True})
        assert "Accepted" not in log["out"]

    on_a_guest(work)


@pytest.mark.guest
def test_ssh_to_a_guest_without_keys_is_refused_in_words(on_a_guest: Callable[[Work], None]) -> None:
    async def work(guest: Machine, _ingredients: Ingredients) -> None:
        with pytest.raises(TestbedError, match="neither its host key nor a key to log in with"):
            await open_channel("ssh", guest, None)

    on_a_guest(work)


@pytest.mark.guest
def test_ssh_to_a_guest_that_has_crashed_ends(on_a_guest: Callable[[Work], None]) -> None:
    async def work(guest: Machine, ingredients: Ingredients) -> None:
        channel = await open_channel("ssh", guest, ingredients.login)
        guest.agent.tell("crash", {"how": "sysrq-c"})
        await guest.qmp_event("GUEST_PANICKED", 20, "the panic", lambda _data: True)
        with pytest.raises(GuestSilent, match="did not come"):
            await channel.run(["true"], within=1)
        await channel.close()

    on_a_guest(work)


@pytest.mark.guest
@pytest.mark.parametrize(("already", "asked"), [(True, "put"), (False, "put"), (True, "run"), (True, "shell")])
def test_ssh_to_a_server_that_stands_still_ends(on_a_guest: Callable[[Work], None], already: bool, asked: str) -> None:
    """paramiko waits without end for the answer to a request and for SFTP to start."""

    async def work(guest: Machine, ingredients: Ingredients) -> None:
        async with opened("ssh", guest, ingredients) as channel:
            assert isinstance(channel, Ssh)
            if already:
                await channel.get("/proc/version")
            with pytest.raises(GuestSilent, match="did not come"):
                await channel.run(["sh", "-c", "kill -STOP $PPID"], within=1)
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "put": lambda: channel.put("/tmp/file", b"octets", within=1),
                "run": lambda: channel.run(["true"], within=1),
                "shell": lambda: channel.shell("vt100", 80, 24, within=1),
            }
            with pytest.raises(GuestSilent, match="within 1 s did not come"):
                await asyncio.wait_for(calls[asked](), 20)

    on_a_guest(work)


# -- without a guest


def test_a_guest_with_other_keys_is_another_template() -> None:
    """An image that was pruned and built again is the same but for its keys; a template of the old one shows the old ones."""
    machine = machine_plan(Guest(nics={"n0": Nic(model="e1000")}))
    boot = Boot(Path("vmlinux"), Path("initrd"))
    one = Ingredients(("qemu",), "d", "tcg", machine, boot, "image", Login("root", Path("key"), "ssh-ed25519 AAAA"))
    assert one.digest() == replace(one, login=Login("root", Path("elsewhere/key"), "ssh-ed25519 AAAA")).digest()
    assert one.digest() != replace(one, login=Login("root", Path("key"), "ssh-ed25519 BBBB")).digest()


TWO_NICS = """
about: a bond over another channel
guest:
  channel: {channel}
  nics: {{n0: {{model: virtio-net}}, n1: {{model: virtio-net}}}}
  bonds: {{bond0: {{mode: active-backup, slaves: [n0, n1], options: {{primary: n1}}}}}}
steps:
  - run: {{argv: [cat, /proc/net/bonding/bond0]}}
  - crash: {{how: sysrq-c}}
expect: [event: {{name: GUEST_PANICKED}}]
"""


def asks(tmp_path: Path, channel: str) -> list[Ask]:
    """The bond's and the command's requests in the plan."""
    (tmp_path / "case.yaml").write_text(TWO_NICS.format(channel=channel))
    plan = compile_plan(scenario_of(tmp_path / "case.yaml")[0], "case.yaml:1")
    actions = [action for stage in plan.stages for action in stage.actions]
    return [ask for ask in actions if isinstance(ask, Ask) and ask.op in ("bond_create", "bond_known", "run")]


@pytest.mark.parametrize("channel", ["qemu-guest-agent", "ssh"])
def test_a_plan_says_which_channel(tmp_path: Path, channel: str) -> None:
    create, known, run = asks(tmp_path, channel)
    assert [(ask.via, ask.op) for ask in (create, known, run)] == [
        (channel, "bond_create"),
        ("agent", "bond_known"),  # so that its carrier is told
        (channel, "run"),
    ]
    assert create.args["macs"] == {"n0": "52:54:00:6e:70:01", "n1": "52:54:00:6e:70:02"}


def test_our_agent_needs_nobody_else(tmp_path: Path) -> None:
    assert [(ask.via, ask.op) for ask in asks(tmp_path, "agent")] == [("agent", "bond_create"), ("agent", "run")]


def test_an_unknown_channel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioErrors, match=r"case.yaml:4:12: 'telnet' is not one of agent, qemu-guest-agent, ssh"):
        asks(tmp_path, "telnet")


def answers(number: int) -> dict[str, list[bytes]]:
    reply = b'\xff{"return": %d}\n' % number
    return {
        "at once": [reply],
        "byte by byte": [reply[place : place + 1] for place in range(len(reply))],
        "after a complaint about our delimiter": [b'{"error": {"class": "GenericError", "desc": "stray"}}\n', reply],
        "after an earlier client's answers": [b'{"return": {}}\n', b'\xff{"return": 99}\n', reply],
        "after half of an answer": [b'{"return": {"pid"', reply],
    }


@pytest.mark.parametrize("how", answers(0))
def test_the_guest_agents_handshake_leaves_the_port_empty(how: str) -> None:
    async def guest(sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        request = json.loads((await reader.readline()).lstrip(b"\xff"))
        assert request["execute"] == "guest-sync-delimited"
        for part in answers(request["arguments"]["id"])[how]:
            writer.write(part)
            await writer.drain()
        assert await reader.readline() == b"done\n"
        writer.write(b"next\n")
        await writer.drain()
        writer.close()

    async def both() -> bytes:
        ours, theirs = socket.socketpair()
        other = asyncio.create_task(guest(theirs))
        await asyncio.wait_for(synchronise(ours), 5)
        ours.setblocking(True)
        ours.sendall(b"done\n")
        await other
        return ours.recv(100)

    assert asyncio.run(both()) == b"next\n"


NONSENSE: dict[str, dict[str, Any]] = {
    "no pid": {"guest-exec": {}},
    "a pid that is a word": {"guest-exec": {"pid": "1"}},
    "a list": {"guest-exec": [1]},
    "nothing": {"guest-exec": None},
    "a status that is a word": {"guest-exec": {"pid": 1}, "guest-exec-status": "exited"},
    "a status without an end": {"guest-exec": {"pid": 1}, "guest-exec-status": {"exited": 1}},
    "an end without a status": {"guest-exec": {"pid": 1}, "guest-exec-status": {"exited": True}},
    "output that is not base64": {
        "guest-exec": {"pid": 1},
        "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": "***"},
    },
}


@pytest.mark.parametrize("answered", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_guest_agent_that_answers_nonsense_is_refused(answered: dict[str, Any]) -> None:
    async def guest(sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        decoder, pending = json.JSONDecoder(), ""
        while data := await reader.read(4096):  # qemu.qmp ends its requests with nothing
            pending += data.lstrip(b"\xff").decode()
            request, end = decoder.raw_decode(pending)
            pending = pending[end:].lstrip()
            if request["execute"] == "guest-sync-delimited":
                writer.write(b'\xff{"return": %d}\n' % request["arguments"]["id"])
                continue
            reply = {"return": answered.get(request["execute"], {}), "id": request["id"]}
            writer.write(json.dumps(reply).encode() + b"\n")

    async def both() -> None:
        ours, theirs = socket.socketpair()
        other = asyncio.create_task(guest(theirs))
        channel = GuestAgent(ours)
        await channel.open(within=5)
        with pytest.raises(GuestRefused, match="qemu-guest-agent gave a"):
            await channel.run(["true"], within=5)
        await channel.close()
        await other

    asyncio.run(both())


def test_a_port_that_closes_is_no_handshake() -> None:
    async def closed() -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        with pytest.raises(GuestSilent, match="no connection to qemu-guest-agent"):
            await GuestAgent(ours).open(within=2)

    asyncio.run(closed())
