"""The command line: fuzz one target, or all of them in turn.

In: a target's name and seconds. Out: a line a target; what was found as a file in the folder of findings. Exit status 0:
nothing found, 1: something was, 2: the fuzzer is not there or the words are wrong.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from guest.tests.fuzz import distil
from guest.tests.fuzz.campaign import CampaignError, Outcome, available, campaign
from guest.tests.fuzz.table import PLANTED, TARGETS


def main() -> int:
    arguments = _arguments()
    if not available():
        print("atheris cannot be imported: it has wheels for Linux on x86_64, CPython 3.11 to 3.14", file=sys.stderr)
        return 2
    names = list(TARGETS) if arguments.target == "all" else [arguments.target]
    found = 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
            try:
                outcome = campaign(name, arguments.seconds, Path(folder), seed=arguments.seed)
            except CampaignError as error:
                print(error, file=sys.stderr)
                return 2
            found += _report(outcome, Path(arguments.findings))
            if arguments.keep:
                print(f"{name}: {distil.keep(name, Path(folder) / 'corpus')} inputs kept")
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m guest.tests.fuzz", description="Fuzz a target under atheris.")
    parser.add_argument(
        "target", choices=[*TARGETS, *PLANTED, "all"], metavar="TARGET", help=", ".join([*TARGETS, "all"])
    )
    parser.add_argument("seconds", nargs="?", type=int, default=60, metavar="SECONDS", help="for each target (60)")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer's own choices; 0 is another each time")
    parser.add_argument("--keep", action="store_true", help="keep inputs that reach new code as seeds")
    parser.add_argument("--findings", default="build/fuzz", help="folder for inputs that fail (build/fuzz)")
    return parser.parse_args()


def _report(outcome: Outcome, findings: Path) -> bool:
    """Print it, with the finding's octets and the fuzzer's last words; True if there is a finding."""
    print(outcome, flush=True)
    if outcome.finding is None:
        return False
    findings.mkdir(parents=True, exist_ok=True)
    path = findings / f"{outcome.target}-{outcome.finding.name}"
    shutil.copyfile(outcome.finding, path)
    print(outcome.report, file=sys.stderr)
    print(f"{path}: {path.read_bytes()[:500]!r}")
    print(f"when mended, keep it: {path} -> guest/tests/fuzz/seeds/{outcome.target}/WHAT-IT-WAS")
    return True


if __name__ == "__main__":
    sys.exit(main())
