"""The fixture `tools`: programs for a second opinion, from the recipe and never from the host, so that no test is skipped for want of one.

In: the cache, or the mirror when they are not in it yet. Out: images.Tools. Rule: where they cannot be had, the test
fails and says what to do.
"""

from __future__ import annotations

import pytest

import images


@pytest.fixture(scope="session")
def tools() -> images.Tools:
    """argv of tshark, rsyslogd, cpio and sqop. Raises ImageError."""
    return images.ensure_tools(images.Builder())


@pytest.fixture(scope="session")
def gdb_argv() -> tuple[str, ...]:
    """argv of gdb, likewise. Raises ImageError."""
    return images.ensure_gdb(images.Builder()).argv()
