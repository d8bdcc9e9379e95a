"""How long a dump takes on a veth, against the bare stream of the same datagrams, and what one lost datagram in a hundred costs.

In: MiB to dump, how many rounds. Out: a table, and whether the goals were met. Rule: it runs in a process and a network namespace of its
own, made for the measurement and gone with it; everything is measured by turns, and a ratio is that of one round's neighbours.

The stream is what cannot be beaten: our stack sends the chunks of the same file and nobody answers. The dumps go to a `netdump-server`
that writes them to a file. Loss is made by our own middleware, which costs time by itself, so that the dump under loss is compared
with one through the same middleware without.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

import images
from guest.netpoll.__main__ import main
from guest.netpoll.clients.debugnet.wire import HEADER_LEN
from guest.netpoll.clients.dump.sources import Source
from guest.netpoll.send import netpoll_send_udp_batch
from guest.netpoll.tool.arguments import parse_arguments
from guest.netpoll.tool.netdump import open_source
from guest.netpoll.tool.session import session
from harness.testbed import namespace

NEAR, FAR = "198.51.100.1", "198.51.100.2"
NOBODY = "02:00:6e:70:6f:6c"  # frames for it end at the far end's driver
WINDOW = 64  # datagrams at once, as a dump's
MIB = 1 << 20
GOALS = {"dump": ("stream", 2.0), "dump, 1 % lost": ("dump through the middleware", 1.2)}  # times as long as, at most
FAULTS = {"dump through the middleware": "drop=0", "dump, 1 % lost": "drop=0.01"}


def measure(mib: int, rounds: int) -> dict[str, Any]:
    """Run `_main` in a process of its own; {"mib": ..., "seconds": {what: [...]}}. CalledProcessError if it fails."""
    command = [sys.executable, "-m", "harness.bench.netdump", str(mib), str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines."""
    seconds: dict[str, list[float]] = result["seconds"]
    width = max(map(len, seconds))
    return [_line(what, times, seconds, result["mib"], width) for what, times in seconds.items()]


def _line(what: str, times: Sequence[float], seconds: Mapping[str, Sequence[float]], mib: int, width: int) -> str:
    usual = statistics.median(times)
    line = f"{what:{width}}  {usual:6.2f} s  {mib / usual:7.1f} MiB/s"
    if what not in GOALS:
        return line
    against, goal = GOALS[what]
    ratio = ratio_of(times, seconds[against])
    return f"{line}  {ratio:5.2f} times {against} (goal {goal:g}: {'met' if ratio <= goal else 'MISSED'})"


def ratio_of(times: Sequence[float], against: Sequence[float]) -> float:
    """The median of the rounds' ratios: a busy machine slows neighbours alike."""
    return statistics.median(a / b for a, b in zip(times, against, strict=True))


def met(result: Mapping[str, Any]) -> bool:
    """True if every goal was reached."""
    seconds = result["seconds"]
    return all(ratio_of(seconds[what], seconds[against]) <= goal for what, (against, goal) in GOALS.items())


def report(mib: int, rounds: int, say: Callable[[str], None]) -> bool:
    """Measure and say; True if every goal was met."""
    result = measure(mib, rounds)
    for line in table(result):
        say(line)
    return met(result)


def _veth() -> None:
    with IPRoute() as netlink:
        netlink.link("add", ifname="near", kind="veth", peer={"ifname": "far"})
        for name in ("near", "far"):
            netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[None]:
    argv = [sys.executable, "-m", "guest.netpoll", "netdump-server", f"@{FAR}/far,@0.0.0.0/", "--dir", str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline().decode()
            if "dumps go to" not in first:
                raise RuntimeError(f"the server did not start: {first}{process.stderr.read().decode()}")
            yield
        finally:
            process.terminate()


def _stream(memory: Path) -> float:
    """The chunks with room for their headers, sent and forgotten."""
    arguments = parse_arguments(["netdump", f"@{NEAR}/near,@{FAR}/{NOBODY}", "-q"])  # the same device as a dump has
    with open_source(str(memory)) as source, session(arguments, "stream") as current:
        start = time.monotonic()
        size = current.np.max_payload - HEADER_LEN
        datagrams = _datagrams(source, size)
        while batch := list(islice(datagrams, WINDOW)):
            netpoll_send_udp_batch(current.np, batch)
        return time.monotonic() - start


def _datagrams(source: Source, size: int) -> Iterator[bytes]:
    head = bytes(HEADER_LEN)
    for chunk in source.chunks(size):
        if chunk is not None:
            yield head + chunk[1]


def _dump(memory: Path, folder: Path, faults: str | None) -> float:
    argv = ["netdump", f"@{NEAR}/near,@{FAR}/", "--vmcore", str(memory), "--progress", "0", "-q"]
    said = io.StringIO()
    start = time.monotonic()
    with contextlib.redirect_stdout(said):
        code = main([*argv, "--timeout", "300", *(["--faults", faults] if faults else [])])
    taken = time.monotonic() - start
    [vmcore] = folder.glob("*/vmcore")
    if code or vmcore.stat().st_size != memory.stat().st_size:
        raise RuntimeError(f"the dump failed: {said.getvalue()}")
    vmcore.unlink()
    return taken


def _main(mib: int, rounds: int) -> dict[str, Any]:
    namespace.enter()
    _veth()
    with images.Store(images.cache_root()).scratch() as made:
        memory, folder = made / "memory", made / "crash"
        memory.write_bytes(os.urandom(mib * MIB))
        folder.mkdir()
        cases: dict[str, Callable[[], float]] = {
            "stream": lambda: _stream(memory),
            "dump": lambda: _dump(memory, folder, None),
        } | {what: lambda faults=faults: _dump(memory, folder, faults) for what, faults in FAULTS.items()}
        seconds: dict[str, list[float]] = {what: [] for what in cases}
        with _server(folder):
            for _ in range(rounds):
                for what, case in cases.items():
                    seconds[what].append(case())
    return {"mib": mib, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(_main(int(sys.argv[1]), int(sys.argv[2]))))
