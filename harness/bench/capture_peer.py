"""One run of a peer of `bench capture`: the same guest panics, and its capture kernel sends a bare stream, or makedumpfile's output
in bare datagrams, through ssh or onto NFS.

In: a pickled Job on standard input, which peer as an argument. Out: one JSON object: seconds on the wire, and from the panic on. Rule: the case is brought up
and crashed as any other; only the capture kernel's client and who listens differ. For namespaces of its own: `unshare -m -n`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import images
from guest.capture.peers import ETHERTYPE, PORT, address
from harness.act import run_stage
from harness.case import Case, Job, bring_up
from harness.dump.vmcore import open_dump
from harness.observe.events import Clock, Event, Evidence
from harness.plan import dump
from harness.plan.model import Ask, Host
from images.process import argv_in_tree
from images.userland import ensure_userland

WITHIN = 600.0  # seconds
READY = 30.0  # seconds until a server listens
OVER = re.compile(r"^capture: [\d.]+ (ended with (\d+)|failed: .*)|end Kernel panic")
SPEAKS = re.compile(r"^capture: [\d.]+ ")
SENT = re.compile(r"^peer: (\d+) datagrams")
FILTER = f"--filter={dump.LEVEL}"
Figures = dict[str, float]
Way = tuple[
    list[str], Callable[[Evidence, float], Figures]
]  # the capture kernel's words; evidence, when it ended -> seconds
LIB = "usr/lib/x86_64-linux-gnu"


async def run(job: Job, given: Mapping[str, Any]) -> Figures:
    """Raises AssertionError with the console's words when it did not work."""
    evidence = Evidence(job.folder / "evidence.jsonl", Clock.start())
    async with bring_up(job, evidence) as case:
        setup, crash = job.plan.stages[:2]
        kept = tuple(each for each in setup.actions if not isinstance(each, Host) and not _arms(each))
        await run_stage(case, setup.model_copy(update={"actions": kept}))
        words, figures = WAYS[given["way"]](case, job.folder, given["frames"])
        given_dump = job.plan.scenario.dump
        assert given_dump is not None
        line = dump.command_line(job.plan.scenario, given_dump.device, words)
        await case.machine.agent.ask("capture_arm", {"cmdline": line})
        await run_stage(case, crash)
        ended = await _ended(evidence, case.machine.console.tail)
        await case.machine.qmp.execute("stop")
        for capture in case.captures.values():
            while capture.drain():
                pass
    return figures(evidence, ended)


def _arms(action: object) -> bool:
    return isinstance(action, Ask) and action.op == "capture_arm"


async def _ended(evidence: Evidence, tail: Callable[[], str]) -> float:
    last: list[Event] = []

    def take(event: Event) -> bool:
        if event["src"] == "console" and OVER.search(event["text"]):
            last.append(event)
        return bool(last)

    assert await evidence.until(take, time.monotonic() + WITHIN), f"the capture kernel did not end within {WITHIN:g} s"
    assert last[0]["text"].endswith("ended with 0"), tail()
    return float(last[0]["t"])


def _panic(evidence: Evidence) -> float:
    return next(
        float(event["t"])
        for event in evidence.events
        if event["src"] == "console" and dump.PANIC_BEGINS in event["text"]
    )


def _bare(_case: Case, _folder: Path, frames: int) -> Way:
    return ["peer", "bare", "DEV", str(frames)], partial(_bare_figures, frames=frames)


def _bare_figures(evidence: Evidence, _ended: float, frames: int) -> Figures:
    came = [event["t"] for event in evidence.events if event["kind"] == "frame" and event.get("ethertype") == ETHERTYPE]
    assert len(came) >= 0.99 * frames, f"{len(came)} of {frames} frames came"
    return {"wire": came[-1] - came[0]}


def _udp(case: Case, _folder: Path, _frames: int) -> Way:
    """A socket that nobody reads: the host's kernel answers for its address, and to no datagram."""
    address(case.plan.nics[0].tap, dump.SERVER_IP, "255.255.255.0")
    sock = case.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((dump.SERVER_IP, PORT))
    return [FILTER, "peer", "udp", "DEV", dump.CLIENT_IP, dump.SERVER_IP], _udp_figures


def _udp_figures(evidence: Evidence, _ended: float) -> Figures:
    """All that the peer says it sent was seen on the wire, but for what a socket may drop before its ARP is answered."""
    came = [event["t"] for event in evidence.events if event["kind"] == "frame" and event.get("dport") == PORT]
    sent = next(
        int(found[1])
        for event in evidence.events
        if event["src"] == "console" and (found := SENT.search(event["text"]))
    )
    assert len(came) >= 0.99 * sent > 1000, f"{len(came)} of {sent} datagrams came"
    return {"wire": came[-1] - came[0], "panic": came[-1] - _panic(evidence)}


def _ssh(case: Case, folder: Path, _frames: int) -> Way:
    """An sshd behind the guest's NIC that does one thing."""
    tree = ensure_userland(images.Builder()).tree
    keygen = [*argv_in_tree(tree / LIB, tree / "usr/bin/ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]
    for key in ("host", "user"):
        subprocess.run([*keygen, str(folder / key)], check=True)
    whole = folder / "flat"
    (folder / "sshd_config").write_text(
        f"ListenAddress {dump.SERVER_IP}:22\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'user.pub'}\nStrictModes no\nUsePAM no\n"
        f"PermitRootLogin yes\nPidFile none\nForceCommand cat > {whole}\n"
    )
    (folder / "passwd").write_text(
        Path("/etc/passwd").read_text() + "sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    for words in (
        f"mount --bind {folder / 'passwd'} /etc/passwd",
        "mount -t tmpfs none /run",
        "mkdir -m 755 /run/sshd",
    ):
        subprocess.run(shlex.split(words), check=True)
    address(case.plan.nics[0].tap, dump.SERVER_IP, "255.255.255.0")
    sshd = [
        *argv_in_tree(tree / LIB, tree / "usr/sbin/sshd"),
        "-r",
        "-D",
        "-f",
        str(folder / "sshd_config"),
        "-E",
        str(folder / "sshd.log"),
    ]
    server = subprocess.Popen(sshd)
    case.stack.callback(server.wait)
    case.stack.callback(server.kill)
    key = base64.b64encode((folder / "user").read_bytes()).decode()
    client = [FILTER, "peer", "ssh", "DEV", dump.CLIENT_IP, dump.SERVER_IP, key]
    return client, partial(_through_ssh, flat=whole, tool=images.ensure_makedumpfile(images.Builder()))


def _through_ssh(evidence: Evidence, ended: float, flat: Path, tool: images.DumpTool) -> Figures:
    """Put in order and opened, as a dump is that came by itself; the time for that counts, too."""
    began = time.monotonic()
    vmcore = flat.with_name("vmcore")
    with flat.open("rb") as source:
        subprocess.run([*tool.argv(), "-R", str(vmcore)], stdin=source, stdout=subprocess.DEVNULL, check=True)
    order = time.monotonic() - began
    assert sum(1 for _ in open_dump(vmcore, tool.lzo).pages) > 1000, "the dump that came through ssh has no pages"
    panic = _panic(evidence)
    return {"wire": ended + order - _first(evidence, panic), "panic": ended + order - panic}


def _first(evidence: Evidence, panic: float) -> float:
    """When the capture kernel's first frame came: after it has said its first word, since the one that died may have sent, too."""
    spoke = next(
        float(e["t"]) for e in evidence.events if e["src"] == "console" and e["t"] > panic and SPEAKS.match(e["text"])
    )
    frames = (event for event in evidence.events if event["kind"] == "frame" and event["dir"] == "out")
    return next(float(event["t"]) for event in frames if event["t"] > spoke)


def _nfs(case: Case, folder: Path, _frames: int) -> Way:
    """A server in user space behind the guest's NIC."""
    address(case.plan.nics[0].tap, dump.SERVER_IP, "255.255.255.0")
    served = folder / "nfs"
    served.mkdir()
    server = subprocess.Popen(images.ensure_nfs_server(images.Builder()).argv(served), stderr=subprocess.DEVNULL)
    case.stack.callback(server.wait)
    case.stack.callback(server.kill)
    _initialized(server, served / "log")
    words = ["--module=nfsv4", "peer", "nfs", "DEV", dump.CLIENT_IP, dump.SERVER_IP, str(dump.LEVEL)]
    return words, partial(_through_nfs, vmcore=served / "export/vmcore")


def _initialized(server: subprocess.Popen[bytes], log: Path) -> None:
    """It serves. Raises AssertionError with its last words."""
    end = time.monotonic() + READY
    while images.NFS_INITIALIZED not in (said := log.read_text() if log.exists() else ""):
        assert server.poll() is None, f"the NFS server ended with {server.returncode}: {said[-1000:]}"
        assert time.monotonic() < end, f"no NFS server within {READY:g} s: {said[-1000:]}"
        time.sleep(0.05)


def _through_nfs(evidence: Evidence, ended: float, vmcore: Path) -> Figures:
    """Opened as it lies there; it is a file from the first."""
    tool = images.ensure_makedumpfile(images.Builder())
    assert sum(1 for _ in open_dump(vmcore, tool.lzo).pages) > 1000, "the dump that came through NFS has no pages"
    panic = _panic(evidence)
    return {"wire": ended - _first(evidence, panic), "panic": ended - panic}


WAYS: Mapping[str, Callable[[Case, Path, int], Way]] = {"bare": _bare, "udp": _udp, "ssh": _ssh, "nfs": _nfs}

if __name__ == "__main__":
    from harness.testbed import namespace  # what it makes quiet, the wrapper's namespace has as well

    assert os.geteuid() == 0, "only root can be logged in to"
    namespace.quiet()
    print(json.dumps(asyncio.run(run(pickle.loads(sys.stdin.buffer.read()), json.loads(sys.argv[1])))))
