"""What this machine gives a case, tried: a network namespace, taps, captures.

In: nothing but the machine. Out: plain findings, in a sentence each where something is missing. Rule: what can be tried is tried, in
a process of its own as a case does it, and nothing is left of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.observe.ring import Ring
from harness.testbed import namespace
from harness.testbed.errors import TestbedError
from harness.testbed.tap import open_tap

TRIAL = 20.0  # seconds; it takes a tenth


@dataclass(frozen=True)
class Refusal:
    """What was refused, and what would help."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Network:
    """How far a case would come; None: as far as it needs. Without a namespace taps are not tried, without taps captures."""

    namespace: Refusal | None = None
    tap: Refusal | None = None
    capture: Refusal | None = None


def try_network() -> Network:
    """Enter a namespace, open a tap, capture on it: in another process, since this one is to stay where it is."""
    here = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "harness.testbed.host"],
        env={
            **os.environ,
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TRIAL,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        return Network(namespace=Refusal(f"the trial ended with status {done.returncode}: {' '.join(last)}", ""))
    parts = json.loads(done.stdout)
    return Network(**{name: Refusal(**part) for name, part in parts.items() if part is not None})


def _try_here() -> Network:
    """Never to be called in a process that is to go on."""
    try:
        namespace.enter()
    except TestbedError as error:
        return Network(namespace=Refusal(error.what, error.hint))
    try:
        tap = open_tap("tap-trial")
    except TestbedError as error:
        return Network(tap=Refusal(error.what, error.hint))
    try:
        Ring("tap-trial").close()
    except OSError as error:
        return Network(capture=Refusal(f"no capture on a tap: {error.strerror}", "the kernel needs CONFIG_PACKET"))
    finally:
        os.close(tap)
    return Network()


if __name__ == "__main__":
    print(json.dumps(asdict(_try_here())))
