"""One target, fuzzed for some seconds in a child process.

In: a target's name, seconds, a folder for what grows. Out: an `Outcome`: how many inputs were run, how coverage grew, and
the input that failed, if one did. The one rule: an input that raises, runs for longer than UNIT_TIMEOUT or makes the
process grow beyond RSS_LIMIT is a finding; a campaign that did not run is an error, never a success.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from guest.tests.fuzz import table
from guest.tests.fuzz.table import Target

UNIT_TIMEOUT = 10  # seconds for one input; on a loaded machine, too, thousands of times what one takes
RSS_LIMIT = 700  # MiB; atheris and the scenario loader have some 150
START = 120.0  # seconds in which the child has to have begun and to have run every seed twice
_STATUS = re.compile(r"#(\d+)\s+(?:INITED|NEW|REDUCE|RELOAD|pulse|DONE)\s+cov: (\d+) ft: (\d+) corp: (\d+)")


class CampaignError(RuntimeError):
    """The fuzzer did not run; its last words are in the message."""


@dataclass(frozen=True)
class Outcome:
    """`coverage` counts branches: those that the seeds reach, and those reached in the end. `finding` is an input."""

    target: str
    seconds: int
    executions: int
    coverage: tuple[int, int]
    units: int  # inputs that reach something no other reaches
    finding: Path | None
    report: str  # the end of what the fuzzer said

    def __str__(self) -> str:
        before, after = self.coverage
        what = f"{self.target}: {self.executions} executions in {self.seconds} s, "
        what += f"coverage {before} -> {after}, {self.units} inputs that differ"
        return f"{what}; FAILED: {self.finding}" if self.finding else what


def available() -> bool:
    """True if atheris can be imported: it has wheels for Linux on x86_64 only."""
    command = [sys.executable, "-c", "import atheris"]
    return subprocess.run(command, capture_output=True, check=False, timeout=START).returncode == 0


def campaign(name: str, seconds: int, folder: Path, *, seed: int = 0, unit_timeout: int = UNIT_TIMEOUT) -> Outcome:
    """Fuzz `name`; `seed` 0 is another one each time. Raises KeyError, CampaignError."""
    target = table.load(name)
    corpus, seeds = folder / "corpus", folder / "seeds"
    for made in (corpus, seeds, folder / "tmp"):
        made.mkdir(parents=True, exist_ok=True)
    write_seeds(name, target, seeds)
    flags = [*_flags(target, folder), f"-seed={seed}", f"-timeout={unit_timeout}"]
    report = _run_child(name, [*flags, str(corpus), str(seeds)], folder, seconds)
    findings = [path for kind in ("crash", "timeout", "oom", "leak") for path in folder.glob(f"{kind}-*")]
    status = [tuple(map(int, match.groups())) for match in _STATUS.finditer(report)]
    if not status and not findings:
        raise CampaignError(f"{name}: the fuzzer did not begin\n{report[-3000:]}")
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", report)
    first, last = (status[0], status[-1]) if status else ((0, 0, 0, 0),) * 2
    return Outcome(
        name,
        seconds,
        int(executions[1]) if executions else last[0],
        (first[1], last[1]),
        last[3],
        findings[0] if findings else None,
        report[-6000:],
    )


def write_seeds(name: str, target: Target, folder: Path) -> None:
    """Encoded and kept seeds as files, named by their SHA-1."""
    for data in [*target.encoded(), *(data for _, data in table.kept(name))]:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def _flags(target: Target, folder: Path) -> list[str]:
    tokens = folder / "tokens"
    tokens.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens or (b"\0",)))  # not empty
    return [
        f"-rss_limit_mb={RSS_LIMIT}",
        f"-max_len={target.max_len}",
        f"-artifact_prefix={folder}/",
        f"-dict={tokens}",
        "-print_final_stats=1",
        "-use_value_profile=1",
    ]


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in token)


def _run_child(name: str, arguments: list[str], folder: Path, seconds: int) -> str:
    """What the child said. Its own limits end it; if they do not, it is killed, and that is a CampaignError."""
    command = [sys.executable, "-m", "guest.tests.fuzz.child", name, str(seconds), *arguments]
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    log = folder / "fuzzer.log"
    with log.open("wb") as out:
        try:
            subprocess.run(
                command,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=table.HERE.parents[2],
                timeout=seconds + START,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            last = log.read_text(errors="replace")[-3000:]
            raise CampaignError(f"{name}: did not end {START:g} s after its time\n{last}") from error
    return log.read_text(errors="replace")
