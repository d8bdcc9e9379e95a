"""The capture kernel's image without a network: which modules need which, and which files of Python's library stay."""

from __future__ import annotations

import pytest

from images.capture import LIBRARY_DROPPED, needs
from images.tests.test_modules import module


def test_each_module_has_a_line_with_what_must_be_loaded_before_it() -> None:
    files = {
        "kernel/net/net-failover.ko": module(depends="failover"),
        "kernel/net/failover.ko": module(depends=""),
        "kernel/drivers/virtio_net.ko": module(depends="failover,net_failover"),
    }
    assert needs(files).splitlines() == ["failover", "net_failover failover", "virtio_net failover net_failover"]


@pytest.mark.parametrize(
    ("path", "stays"),
    [
        ("usr/lib/python3.11/argparse.py", True),
        ("usr/lib/python3.11/logging/__init__.py", True),
        ("usr/lib/python3.11/urllib/parse.py", True),
        ("usr/lib/python3.11/encodings/utf_8.py", True),
        ("usr/lib/python3.11/encodings/__pycache__/idna.cpython-311.pyc", True),
        ("usr/lib/python3.11/encodings/cp1252.py", False),
        ("usr/lib/python3.11/encodings/__pycache__/cp1252.cpython-311.pyc", False),
        ("usr/lib/python3.11/asyncio/base_events.py", False),
        ("usr/lib/python3.11/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so", True),
        ("usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", False),
    ],
)
def test_what_no_client_imports_is_left_out(path: str, stays: bool) -> None:
    assert (LIBRARY_DROPPED.search("/" + path) is None) == stays
