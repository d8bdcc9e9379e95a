"""Options of a bond: sysfs's names and words, every contradiction refused in words; which mode faces which."""

from __future__ import annotations

import pytest

from guest.netpoll.bonding import Mode, ParamError, parse_options, partner_mode
from guest.netpoll.bonding.params import BondParams, FailOverMac, LacpRate, XmitPolicy


@pytest.mark.parametrize(
    ("number", "word"),
    list(
        enumerate(["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"])
    ),
)
def test_modes_have_the_kernels_numbers(number: int, word: str) -> None:
    assert parse_options({"mode": word}).mode.number == number
    assert parse_options({"mode": number}).mode.value == word


def test_options_by_word_number_and_address() -> None:
    params = parse_options(
        {
            "mode": "802.3ad",
            "miimon": "50",
            "updelay": 200,
            "xmit_hash_policy": "layer3+4",
            "lacp_rate": 1,
            "lacp_active": "0",
            "ad_actor_system": "02:00:00:00:00:07",
        }
    )
    assert params == BondParams(
        mode=Mode.AD,
        miimon=50,
        updelay=200,
        xmit_hash_policy=XmitPolicy.LAYER34,
        lacp_rate=LacpRate.FAST,
        lacp_active=False,
        ad_actor_system=bytes.fromhex("020000000007"),
    )
    assert params.fail_over_mac is FailOverMac.NONE


WRONG: list[tuple[dict[str, str | int], str]] = [
    ({"mode": "rr"}, r"mode is 'rr': one of balance-rr, active-backup"),
    ({"mode": 7}, "mode is '7'"),
    ({"modus": "802.3ad"}, "'modus' is no option of a bond"),
    ({"miimon": "-1"}, "miimon is '-1': a number"),
    ({"miimon": "0x10"}, "a number"),
    ({"packets_per_slave": 0}, "packets_per_slave is 0: 1 to 65535"),
    ({"xmit_hash_policy": "encap2+3"}, "one of layer2, layer2\\+3, layer3\\+4"),
    ({"lacp_active": "yes"}, "0 or 1"),
    ({"ad_actor_system": "02:00"}, "ad_actor_system: MAC address"),
    ({"ad_actor_system": "01:00:00:00:00:00"}, "group address"),
    ({"ad_user_port_key": 1024}, "0 to 1023"),
    ({"mode": "balance-rr", "primary": "eth0"}, "has none"),
    ({"mode": "balance-rr", "fail_over_mac": "active"}, "active-backup only"),
    ({"miimon": 0, "updelay": 100}, "updelay without miimon"),
    ({"mode": "802.3ad", "miimon": 0}, "needs miimon"),
    ({"mode": "balance-alb", "miimon": 0}, "needs miimon"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(row[0]) for row in WRONG])
def test_what_is_wrong_is_said(options: dict[str, str | int], message: str) -> None:
    with pytest.raises(ParamError, match=message):
        parse_options(options)


PARTNERS = {
    "balance-rr": "balance-xor",
    "active-backup": "broadcast",
    "balance-xor": "balance-xor",
    "broadcast": "active-backup",
    "802.3ad": "802.3ad",
    "balance-tlb": "broadcast",
    "balance-alb": "broadcast",
}


@pytest.mark.parametrize(("mode", "partner"), PARTNERS.items())
def test_partner_mode(mode: str, partner: str) -> None:
    assert partner_mode(mode) == partner


def test_partner_mode_of_no_mode() -> None:
    with pytest.raises(ParamError, match="one of balance-rr"):
        partner_mode("bridge")
