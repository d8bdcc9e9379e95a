"""guest.capture without a kernel to capture: words, the order of modules, and a stream that is cut by a panic."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest.capture.arguments import parse
from guest.capture.system import in_order, needs

NEEDS = {"virtio": [], "virtio_ring": [], "failover": [], "net_failover": ["failover"]} | {
    "virtio_net": ["failover", "net_failover"],
    "virtio_pci": ["virtio_ring", "virtio"],
}


@pytest.mark.parametrize(
    ("names", "order"),
    [
        pytest.param(["virtio_pci", "virtio_net"], ["virtio_ring", "virtio", "virtio_pci", "failover", "net_failover", "virtio_net"], id="each once, after what it needs"),
        pytest.param(["e1000"], [], id="built in, or not there at all"),
        pytest.param([], [], id="none"),
    ],
)  # fmt: skip
def test_modules_are_loaded_after_what_they_need(names: list[str], order: list[str]) -> None:
    assert in_order(names, NEEDS) == order


def test_what_the_image_says_of_modules_is_read(tmp_path: Path) -> None:
    (tmp_path / "needs").write_text("virtio_net failover net_failover\nfailover\n")
    assert needs(tmp_path) == {"virtio_net": ["failover", "net_failover"], "failover": []}


def test_the_client_s_words_are_its_own() -> None:
    given = parse(
        ["--module=e1000", "--nic=52:54:00:00:00:01", "--filter=31", "netdump", "@/DEV,@1.2.3.4/", "--filter", "x"]
    )
    assert given.client == ["netdump", "@/DEV,@1.2.3.4/", "--filter", "x"]
    assert (given.module, given.nic, given.filter, given.then) == (["e1000"], ["52:54:00:00:00:01"], 31, "stay")


def test_words_that_nobody_knows_end_it() -> None:
    with pytest.raises(SystemExit):
        parse(["--modul=e1000"])
