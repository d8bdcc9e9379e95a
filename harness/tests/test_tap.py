"""Taps that cannot be had: each reason with its own remedy. Those that can are in every test on a guest."""

from __future__ import annotations

import errno
import os

import pytest

from harness.testbed.errors import NoTap
from harness.testbed.tap import open_tap

REFUSED = {
    "not this user's": (errno.EACCES, "chmod 0666 /dev/net/tun"),
    "absent": (errno.ENOENT, "--device /dev/net/tun"),
    "no driver": (errno.ENODEV, "modprobe tun"),
    "kept out by the container": (errno.EPERM, "--device /dev/net/tun"),
}


@pytest.mark.parametrize(("number", "remedy"), REFUSED.values(), ids=REFUSED)
def test_why_there_is_no_tap(number: int, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, _flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NoTap, match=os.strerror(number)) as refused:
        open_tap("tap-x")
    assert remedy in refused.value.hint
