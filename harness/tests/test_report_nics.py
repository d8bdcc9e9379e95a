"""docs/nics.md: cells from evidence, cases of one model joined, and the page in the tree a run's and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.plan.compile import compile_plan
from harness.plan.model import Plan
from harness.plan.nics import MODELS
from harness.report import nics, store
from harness.report.nics import Sighting, merged, sighting
from harness.scenario.load import load_tree
from harness.tests.judge_evidence import event

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "testcases" / "nics"


def plan_of(case: str) -> Plan:
    (loaded,) = [each for each in load_tree([FOLDER]) if each.scenario.case == case]
    return compile_plan(loaded.scenario, loaded.source)


def plugged(bound: float, carrier: float) -> list[Event]:
    """From device_add (asked for at 1.0 s, answered at 1.1 s) to a carrier."""
    return [
        event(0.0, "run", "start", case="", wall="", versions={}),
        event(1.1, "qmp", "reply", execute="device_add", arguments={}, seconds=0.1),
        event(bound, "guest", "nic", nic="n0", ifname="eth0", driver="e1000", seconds=0.3),
        event(bound, "guest", "carrier", nic="n0", up=False),
        event(carrier, "guest", "carrier", nic="n0", up=True),
    ]


def seen(case: str, *events: Event) -> Sighting:
    plan = plan_of(case)
    told = [*plugged(1.5, 3.25), *events, event(40.0, "run", "end")]
    return sighting(plan, told, judge(plan, told), "6.1.0-50-amd64")


def cut(t: float, state: str, after: float | None = None) -> list[Event]:
    told = [event(t, "inject", "link", nic="n0", state=state)]
    return told + ([] if after is None else [event(t + after, "guest", "carrier", nic="n0", up=state == "up")])


def test_times_are_counted_from_device_add() -> None:
    found = seen("nics/first-words[nic=e1000,machine=pc]")
    assert found.bound == pytest.approx(0.5)
    assert found.carrier == pytest.approx(2.25)
    assert (found.kernel, found.machine, found.model, found.bus) == ("6.1.0-50-amd64", "pc", "e1000", "PCI root")
    assert (found.netconsole, found.parity, found.link) == (None, None, None)


@pytest.mark.parametrize(
    ("case", "bus"),
    [
        ("nics/first-words[nic=e1000,machine=q35]", "PCIe-PCI bridge"),
        ("nics/first-words[nic=igb,machine=q35]", "PCIe root port"),
        ("nics/first-words[nic=igb,machine=pc]", "PCI root"),
    ],
)
def test_buses(case: str, bus: str) -> None:
    assert seen(case).bus == bus


LINKS: dict[str, tuple[str, list[Event], str]] = {
    "follows": ("set-link[nic=e1000,machine=pc]", cut(5, "down", 2.0) + cut(12, "up", 1.2), "yes, within 2.0 s"),
    "half": ("set-link[nic=e1000,machine=pc]", cut(5, "down", 2.0) + cut(12, "up"), "1 of 2 changes"),
    "does-not": ("unseen-link[nic=i82801,machine=pc]", cut(5, "down") + cut(12, "up"), "no"),
    "does-after-all": ("unseen-link[nic=i82801,machine=pc]", cut(5, "down", 1) + cut(12, "up", 1), "yes, within 1.0 s"),
}  # fmt: skip


@pytest.mark.parametrize(("case", "events", "cell"), LINKS.values(), ids=LINKS)
def test_set_link_is_told_as_seen_whatever_was_expected(case: str, events: list[Event], cell: str) -> None:
    assert seen(f"nics/{case}", *events).link == cell


def test_a_guest_that_hangs_when_its_link_is_cut() -> None:
    look = {"why": "", "cpu": 0, "rip": "0x1", "where": "cp_start_xmit+0x2d [8139cp]", "halted": False, "stack": []}
    looks = [event(20 + n, "qmp", "stuck", sample=n, **look) for n in range(3)]
    silent = event(19.0, "run", "silent", what="the guest's agent did not answer")
    assert seen("nics/set-link[nic=rtl8139,machine=pc]", *cut(5, "down"), silent, *looks).link == "hangs"


PANIC = ("Kernel panic - not syncing: sysrq triggered crash", "one", "---[ end Kernel panic - not syncing ]---")


def panic(shown: int, wire: int) -> list[Event]:
    """A panic with so many of its lines on the console, and so many of those on the wire."""
    stamped = [f"[   10.00000{n}] {line}" for n, line in enumerate(PANIC)]
    lines = [event(10 + n / 100, "console", "line", text=text) for n, text in enumerate(stamped[:shown])]
    keys: dict[str, Any] = {"sport": 6665, "sip": "198.51.100.10", "dip": "198.51.100.100", "dport": 6666}
    frame = {
        "tap": "tap-n0",
        "nic": "n0",
        "dir": "out",
        "len": 99,
        "wall_ns": 1,
        "ethertype": 2048,
        "csum": "ok",
        "ip_csum": "ok",
    }
    rx: list[Event] = []
    for n, text in enumerate(stamped[:wire]):
        t = 10.005 + n / 100
        rx += [event(t, "wire", "frame", **frame, **keys), event(t, "host", "rx", endpoint="log", text=text + "\n")]
    return [event(9.9, "inject", "crash", how="sysrq-c"), *lines, *rx]


@pytest.mark.parametrize(
    ("shown", "wire", "cell"),
    [(3, 3, "yes, 3 lines"), (3, 1, "no: 2 of 3 lines lost"), (2, 1, "no: hangs after line 2")],
    ids=["whole", "lost", "hangs"],
)
def test_panic_parity(shown: int, wire: int, cell: str) -> None:
    assert seen("nics/first-words[nic=e1000,machine=pc]", *panic(shown, wire)).parity == cell


def test_cases_of_one_model_are_one_row_and_rows_are_in_the_tables_order() -> None:
    words = seen("nics/first-words[nic=e1000,machine=pc]", *panic(3, 3))
    links = seen("nics/set-link[nic=e1000,machine=pc]", *cut(5, "down", 2.0), *cut(12, "up", 1.0))
    other = seen("nics/first-words[nic=virtio-net,machine=pc]")
    rows = merged([words, other, links])
    assert [row.model for row in rows] == ["virtio-net", "e1000"]
    assert (rows[1].parity, rows[1].link) == ("yes, 3 lines", "yes, within 2.0 s")


def test_a_page_from_folders(tmp_path: Path) -> None:
    plan = plan_of("nics/first-words[nic=virtio-net-packed,machine=q35]")
    folder = store.new_case(tmp_path, plan, {"kernel": "6.1.0-50-amd64", "qemu": "11.1.3", "accel": "tcg"})
    events = [*plugged(1.5, 1.75), *panic(3, 3), event(40.0, "run", "end")]
    (folder / "evidence.jsonl").write_text("".join(json.dumps(each) + "\n" for each in events))
    page = nics.page([folder])
    assert "## Linux 6.1.0-50-amd64, q35" in page
    row = "| `virtio-net-packed` | virtio-net-pci,disable-legacy=on,packed=on | virtio_net | PCIe root port | 0.5 s | 0.8 s |"
    assert row in page
    assert "QEMU 11.1.3, accelerator tcg" in page


def test_folders_without_a_nics_case_are_refused(tmp_path: Path) -> None:
    (loaded, *_) = load_tree([ROOT / "testcases" / "bonding" / "failover-then-panic.yaml"])
    folder = store.new_case(tmp_path, compile_plan(loaded.scenario, loaded.source), {})
    with pytest.raises(store.StoreError, match="exactly one NIC"):
        nics.page([folder])


def test_the_page_in_the_tree_has_every_model_on_both_machines_and_agrees_with_the_models() -> None:
    page = (ROOT / "docs" / "nics.md").read_text()
    assert nics.COMMAND in page
    for machine in ("pc", "q35"):
        (table,) = re.findall(rf"## Linux 6\.1\S*, {machine}\n\n((?:\|.*\n)+)", page)
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
        assert [row[0].strip("`") for row in rows] == [word for word, model in MODELS.items() if not model.served]
        for row in rows:
            cells = dict(zip(nics.HEAD, row, strict=True))
            assert all(cells.values()), f"{row[0]}: nothing was seen of some column"
            follows = cells["follows set_link"]
            assert MODELS[row[0].strip("`")].link == (follows != "no"), row
