"""Linux' unmodified e1000 and virtio_net on our models, in real guests: they bind, say nothing bad, carry TCP byte-exact with and without
offloads, survive a link flap and being loaded again. (e1000 is unplugged, too; MSI-X and unplugging end QEMU: harness.tests.served_guest.)"""

from __future__ import annotations

import pytest

from harness.tests.test_tg3_guest import played

CASES = {"e1000": "fasteoi", "virtio-net": "MSI"}


@pytest.mark.guest
@pytest.mark.netns
@pytest.mark.parametrize(("model", "interrupt"), CASES.items(), ids=CASES)
@pytest.mark.parametrize("kernel", ["debian-6.1", pytest.param("debian-6.12", marks=pytest.mark.long)])
def test_the_kernels_own_driver_is_content(kernel: str, model: str, interrupt: str) -> None:
    found = played(kernel, "content", model)
    assert found["dmesg"] == "", "no complaint of the kernel"
    assert not [remark for remark in found["remarks"] if "reset" in remark]
    for tso in ("tso on", "tso off"):
        assert found[tso] == {"out": True, "in": True}, tso
    assert interrupt in found["interrupt"], found["interrupt"]
    if model == "e1000":
        assert "PASS" in found["self-test"]


@pytest.mark.guest
@pytest.mark.netns
@pytest.mark.long
def test_e1000_tests_the_whole_chip_and_finds_no_fault() -> None:
    """e1000_diag_test() with ETH_TEST_FL_OFFLINE: registers, EEPROM, interrupt, loopback, link."""
    said = played("debian-6.1", "offline", "e1000")["self-test"]
    assert "result is PASS" in said, said
    assert said.count("\t 0\n") == 5, said
