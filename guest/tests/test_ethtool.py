"""A driver's counters by ethtool's ioctl, of real interfaces."""

from __future__ import annotations

import pytest

from guest.ethtool import driver_counters
from guest.tests.kernel_end import OURS, THEIRS, KernelEnd

pytestmark = pytest.mark.netns


def test_what_veth_counts_has_its_names(netns: KernelEnd) -> None:
    assert driver_counters(OURS)["peer_ifindex"] == netns.index(THEIRS)


def test_a_driver_that_counts_nothing_has_no_counters(netns: KernelEnd) -> None:
    assert netns.index("lo") == 1
    assert driver_counters("lo") == {}


def test_an_interface_that_is_not_there_is_an_error(netns: KernelEnd) -> None:
    assert netns.index(OURS)
    with pytest.raises(OSError, match="No such device"):
        driver_counters("nowhere")
