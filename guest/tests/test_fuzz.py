"""Every target with every seed, always; each for a moment under the fuzzer, where atheris can be had; and the fuzzer itself.

A seed that fails is run again with `replay(load(TARGET), (SEEDS / TARGET / NAME).read_bytes())`; fuzzing for longer is
`tox -e fuzz -- TARGET SECONDS`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from guest.netpoll.middleware import pcapng_read
from guest.tests.fuzz import distil, reference
from guest.tests.fuzz.campaign import CampaignError, available, campaign
from guest.tests.fuzz.frames import CAPTURES, DATA, LOCAL6, PEER6, udp_frame
from guest.tests.fuzz.octets import Octets, block, blocks
from guest.tests.fuzz.replay import TookTooLong, replay
from guest.tests.fuzz.table import HERE, PLANTED, SEEDS, TARGETS, Target, entry, kept, load

MAX_KEPT = 300 * 1024  # octets, of all targets
needs_atheris = pytest.mark.skipif(not available(), reason="no atheris: it has wheels for Linux on x86_64 only")


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_holds(name: str) -> None:
    target = load(name)
    for number, data in enumerate(target.encoded()):
        _replay(target, f"{name}, encoded seed {number}", data)
    for seed, data in kept(name):
        _replay(target, f"{name}, kept seed {seed}", data)


def _replay(target: Target, which: str, data: bytes) -> None:
    try:
        replay(target, data)
    except Exception as error:
        error.add_note(f"{which}: {data!r}")
        raise


@needs_atheris
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_campaign_finds_nothing(name: str, tmp_path: Path) -> None:
    outcome = campaign(name, 2, tmp_path, seed=1)
    found = outcome.finding
    assert found is None, f"{outcome}\n{found.read_bytes()!r}\n{outcome.report}"
    assert outcome.executions > len(list(load(name).encoded())), "the seeds alone were run"
    assert outcome.coverage[0] > 0, "nothing is instrumented"


@needs_atheris
@pytest.mark.parametrize(
    ("name", "begins", "kind"),
    [("planted_crash", b"NET", "crash"), ("planted_hang", b"UP", "timeout"), ("planted_leak", b"MB", "oom")],
)
def test_a_planted_fault_is_found(name: str, begins: bytes, kind: str, tmp_path: Path) -> None:
    outcome = campaign(name, 60, tmp_path, seed=1, unit_timeout=2)
    assert outcome.finding is not None, str(outcome)
    assert outcome.finding.name.startswith(kind)
    assert outcome.finding.read_bytes().startswith(begins)
    assert "FAILED" in str(outcome)


@needs_atheris
def test_a_campaign_that_cannot_begin_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(CampaignError, match="did not begin"):
        campaign("options", 1, tmp_path)


def test_a_planted_crash_is_replayed() -> None:
    with pytest.raises(IndexError, match="planted"):
        replay(load("planted_crash"), b"NETPOLL")


def test_a_planted_hang_ends() -> None:
    with pytest.raises(TookTooLong):
        replay(load("planted_hang"), b"UP", limit=0.2)


def test_every_target_is_in_the_table() -> None:
    modules = {f"guest.tests.fuzz.targets.{path.stem}" for path in (HERE / "targets").glob("[a-z]*.py")}
    assert {entry(name).module for name in TARGETS} == modules
    for name in PLANTED:
        load(name).run(b"")


def test_kept_seeds_are_of_a_target_and_few() -> None:
    assert {path.name for path in SEEDS.iterdir()} <= set(TARGETS)
    assert sum(len(data) for name in TARGETS for _, data in kept(name)) < MAX_KEPT


def test_what_is_kept_is_small_and_new() -> None:
    target, packages = load("planted_crash"), entry("planted_crash").instrument
    candidates = [b"xyz", b"NExt", b"NE", b"N...", b"N"]
    assert distil.choose(target, [b"seed"], candidates, packages, 100) == [b"N", b"NE"]
    assert distil.choose(target, [b"seed", b"NE!"], candidates, packages, 100) == []
    assert distil.choose(target, [b"seed"], candidates, packages, 1) == [b"N"]


def test_octets_read_back_what_blocks_wrote() -> None:
    octets = Octets(b"\x05" + blocks([b"ab", b""]) + block(b"cut short")[:4])
    assert octets
    assert (octets.u8(), octets.block(), octets.block(), octets.block()) == (5, b"ab", b"", b"cu")
    assert (bool(octets), octets.u8(), octets.block(), octets.rest()) == (False, 0, b"", b"")


@pytest.mark.parametrize("name", CAPTURES)
def test_the_reference_reads_what_a_kernel_sent(name: str) -> None:
    for packet in pcapng_read.read((DATA / name).read_bytes()):
        found = reference.datagram(packet.data)
        assert found is not None
        assert found.payload == packet.data[42:]


@pytest.mark.parametrize(
    ("frame", "check", "unchecked"),
    [
        pytest.param(udp_frame(6666), 24, set(), id="IPv4"),
        pytest.param(udp_frame(6666, src=PEER6, dst=LOCAL6), 60, {14, 15, 16, 17, 21}, id="IPv6"),  # class, label, hops
    ],
)
def test_the_reference_refuses_a_changed_octet_and_repairs_a_checksum(
    frame: bytes, check: int, unchecked: set[int]
) -> None:
    whole = reference.datagram(frame)
    assert whole is not None
    assert reference.repaired(frame) == frame
    for at in {*range(14, len(frame))} - unchecked:
        assert reference.datagram(_changed(frame, at)) is None, f"octet {at}"
    assert reference.datagram(reference.repaired(_changed(frame, check))) == whole


def _changed(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes((frame[at] ^ 0x5A,)) + frame[at + 1 :]
