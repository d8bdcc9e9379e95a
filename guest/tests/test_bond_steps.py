"""The order in which a bond of Linux is set up."""

from __future__ import annotations

from guest.bond_steps import Step, steps


def test_mode_options_slaves_up_then_what_names_a_slave() -> None:
    """Up after enslaving, or 802.3ad waits 8 s for its first aggregator; `primary` after the slave that it names."""
    options: dict[str, str | int] = {"primary": "eth1", "fail_over_mac": "active", "updelay": 200}
    assert list(steps("bond0", "active-backup", ["eth0", "eth1"], 100, options)) == [
        Step("active-backup", "mode"),
        Step("100", "miimon"),
        Step("active", "fail_over_mac"),
        Step("200", "updelay"),
        Step("eth0", up=False),
        Step("+eth0", "slaves"),
        Step("eth1", up=False),
        Step("+eth1", "slaves"),
        Step("bond0"),
        Step("eth1", "primary"),
    ]
