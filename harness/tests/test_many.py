"""Many cases in a row and four at once: no process, tap, namespace, memory or disk growth.

200 in a row take minutes and are marked `long` (`tox -e long`); a shorter row runs with every gate.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low

import pytest

from harness.run import Bench, load
from harness.tests.traces import Ground, descriptors, files, interfaces, make_ground, own_bytes

pytestmark = pytest.mark.guest

LOOK = 0.1  # seconds between two looks at what runs
SETTLED = 10  # cases after which a process has everything imported and its caches filled
PER_CASE = 40 << 10  # bytes that pytest may keep of a case (its reports and its plan)
NOISE = 2 << 20  # bytes by which an allocator's idle memory varies

CASE = """
about: a row of equal cases
matrix:
  seed: {seeds}
guest:
  nics:
    n0: {{model: virtio-net}}
endpoints:
  sender: {{at: guest, stack: netpoll, device: n0, peer: sink}}
  sink: {{at: host, stack: netpoll, device: n0, peer: sender}}
steps:
  - send: {{from: sender, count: 50, seed: "${{seed}}"}}
  - wait: {{received: sink, count: 50}}
expect:
  - delivered: {{from: sender, to: sink, at_least_sent: 50}}
"""


@dataclass
class Watch:
    """What was seen of a run's processes, look by look."""

    memory: dict[int, list[int]] = field(default_factory=dict)  # pid -> own bytes at each look
    opened: dict[int, list[int]] = field(default_factory=dict)  # pid -> descriptors at each look
    verdicts: list[int] = field(default_factory=list)  # how many there were at each look
    guests_at_once: int = 0
    shared_namespaces: int = 0
    templates: set[str] = field(default_factory=set)
    most_processes: int = 0

    def look(self, ground: Ground) -> None:
        running = ground.processes()
        guests = {pid for pid, command in running.items() if "qemu-system" in command and "-incoming" in command}
        spaces = [space for pid in guests if (space := _namespace(pid))]
        self.guests_at_once = max(self.guests_at_once, len(spaces))
        self.shared_namespaces += len(spaces) - len(set(spaces)) + spaces.count(_namespace(os.getpid()))
        self.templates |= {ram for pid in guests if (ram := _ram_of(pid))}
        self.most_processes = max(self.most_processes, len(running))
        self.verdicts.append(len(list(ground.results.glob("*/verdict.json"))))
        for pid in running:
            for table, value in ((self.memory, own_bytes(pid)), (self.opened, descriptors(pid))):
                table.setdefault(pid, [0] * (len(self.verdicts) - 1)).append(value)

    def lasting(self, settled: int, total: int) -> Iterator[tuple[int, int, int, int]]:
        """(pid, cases between, growth of memory, growth of descriptors) of each process that served from the `settled` first cases to
        the last ones."""
        first = next(look for look, count in enumerate(self.verdicts) if count >= settled)
        last = max(look for look, count in enumerate(self.verdicts) if count <= total - 1)
        for pid, memory in self.memory.items():
            opened = self.opened[pid]
            if len(memory) > last and memory[first] and memory[last]:
                between = self.verdicts[last] - self.verdicts[first]
                low = min(memory[first : first + 5])
                usual = median_low(opened[first : first + 9])  # some looks fall between two cases
                yield (
                    pid,
                    between,
                    min(memory[last - 4 : last + 1]) - low,
                    median_low(opened[last - 8 : last + 1]) - usual,
                )


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def in_stride(ground: Ground) -> int:
    """After how many cases a run is in its stride: the first of them were restored, all since are copied."""
    verdicts = sorted(ground.results.glob("*/verdict.json"), key=lambda path: path.stat().st_mtime)
    firsts = [
        json.loads(path.with_name("evidence.jsonl").read_text().partition("\n")[0])["machine"] for path in verdicts
    ]
    return max(SETTLED, firsts.index("copied") + 2 if "copied" in firsts else 0)


def _ram_of(pid: int) -> str:
    """Device and inode of the template's memory that a guest has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return ""
    return next((" ".join(line.split()[3:5]) for line in lines if line.endswith("/ram")), "")


def row(ground: Ground, folder: Path, count: int, *options: str) -> tuple[Watch, str, int]:
    """Run `count` cases and watch them: what was seen, what the run said, its status."""
    case = folder / "row.yaml"
    case.write_text(CASE.format(seeds=list(range(1, count + 1))))
    said = (folder / "said").open("w+")
    run = ground.popen("run", case, "--results", ground.results, *options, stdout=said, stderr=subprocess.STDOUT)
    watch = Watch()
    while True:
        try:
            run.wait(LOOK)
            break
        except subprocess.TimeoutExpired:
            watch.look(ground)
    said.seek(0)
    with said:
        return watch, said.read(), run.returncode


@pytest.fixture
def ground(bench: Bench, testcases: Path, tmp_path: Path) -> Ground:
    """With the template made, so that what follows adds nothing to the cache."""
    bench.prepare(load([testcases / "send" / "datagrams-out.yaml"], bench.options)[0])
    made = make_ground(tmp_path / "ground", bench.options.cache)
    (tmp_path / "warm.yaml").write_text(CASE.format(seeds=[1]))
    done = made.run("run", tmp_path / "warm.yaml", "--results", tmp_path / "warm")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.mark.parametrize(
    ("count", "at_once"),
    [
        pytest.param(24, 0, id="24 in a row"),
        pytest.param(40, 4, id="40, four at once", marks=pytest.mark.long),
        pytest.param(200, 0, id="200 in a row", marks=pytest.mark.long),
        pytest.param(200, 4, id="200, four at once", marks=pytest.mark.long),
    ],
)
def test_many_cases_leave_nothing_and_grow_nothing(ground: Ground, tmp_path: Path, count: int, at_once: int) -> None:
    before, cached = interfaces(), files(ground.cache)
    watch, said, status = row(ground, tmp_path, count, *(("-n", str(at_once)) if at_once else ()))
    assert status == 0, said
    words = [json.loads(path.read_text())["word"] for path in ground.results.glob("*/verdict.json")]
    assert words == ["PASS"] * count

    assert ground.wait_until_gone() == {}
    assert interfaces() == before
    assert files(ground.temporary) == {}
    assert files(ground.cache) == cached
    assert len(list((ground.cache / "templates").glob("*/template.json"))) == 1

    assert len(watch.templates) == 1, "all clones map one template's memory"
    assert watch.shared_namespaces == 0
    original = watch.guests_at_once - max(at_once, 1)
    assert original in (0, 1), "what cases are copied from stands beside them, one for all workers"

    lasting = list(watch.lasting(in_stride(ground), count))
    assert len(lasting) >= (2 if not at_once else 1 + 2 * at_once)
    for pid, cases, memory, opened in lasting:
        print(f"process {pid}: {memory / 1024:+.0f} KiB and {opened:+d} descriptors in {cases} cases")
    for pid, cases, memory, opened in lasting:
        assert memory <= PER_CASE * cases + NOISE, (pid, cases, memory)
        assert opened <= 0 + at_once, (pid, cases, opened)

    sizes = [
        sum(files(folder).values())
        for folder in sorted(filter(Path.is_dir, ground.results.iterdir()), key=lambda path: path.stat().st_mtime)
    ]
    assert max(sizes) < 2 * min(sizes), "a case's evidence does not grow with the number of cases before it"
