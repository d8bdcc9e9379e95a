"""What the tests on real guests share: one Bench a session, which builds images and templates that are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.run import Bench, Options
from images.tests.tools import gdb_argv, tools

__all__ = ["bench", "gdb_argv", "testcases", "tools"]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(Options(results=tmp_path_factory.mktemp("evidence")), print)
    yield made
    made.close()


@pytest.fixture(scope="session")
def testcases() -> Path:
    return Path(__file__).resolve().parents[2] / "testcases"
