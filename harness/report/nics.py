"""What a run saw of each NIC model, as the table of docs/nics.md: made from evidence, never typed.

In: case folders of a run of testcases/nics (any case with one NIC counts). Out: Markdown. Rule: a cell says what some case showed and
stays empty where none did; times are counted from the `device_add` that plugged the NIC in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from harness.judge.judge import judge
from harness.judge.model import CheckResult, Verdict
from harness.judge.records import Event
from harness.plan.model import Plan
from harness.plan.nics import MODELS
from harness.report import store

HEAD = (
    "model",
    "QEMU device",
    "driver",
    "bus",
    "bound in",
    "carrier in",
    "netconsole",
    "panic parity",
    "follows set_link",
)


@dataclass(frozen=True)
class Sighting:
    """What one case, or several of the same NIC, showed. None: nothing of it."""

    kernel: str
    machine: str
    model: str
    bus: str
    bound: float | None = None  # seconds
    carrier: float | None = None
    netconsole: str | None = None
    parity: str | None = None
    link: str | None = None
    bug: str | None = None  # the reason of a known bug that was met


COMMAND = "netpoll-harness nics RESULTS"  # what makes the page


def page(folders: Sequence[Path]) -> str:
    """The whole page. Raises StoreError, also when no case has exactly one NIC."""
    sightings = merged(sight(folder) for folder in folders if _one_nic(folder))
    if not sightings:
        raise store.StoreError("no case in there has exactly one NIC\n  -> netpoll-harness run testcases/nics")
    versions = store.read_versions(folders[0])
    lines = [
        "# NICs",
        "",
        f"Made by `{COMMAND}` from a run of `testcases/nics`: QEMU {versions['qemu']}, accelerator {versions['accel']}; not typed, do not edit.",
        "Times are seconds from QMP's `device_add` on a shared machine: orders of magnitude. Findings behind what does not work:",
        "[findings.md](findings.md).",
    ]
    for kernel, machine in sorted({(each.kernel, each.machine) for each in sightings}):
        here = [each for each in sightings if (each.kernel, each.machine) == (kernel, machine)]
        lines += ["", f"## Linux {kernel}, {machine}", "", *_table(here), *_bugs(here)]
    return "\n".join(lines) + "\n"


def _one_nic(folder: Path) -> bool:
    return len(store.read_plan(folder).nics) == 1


def sight(folder: Path) -> Sighting:
    """What one case shows. Raises StoreError."""
    plan, events = store.read_case(folder)
    return sighting(plan, events, judge(plan, events), store.read_versions(folder)["kernel"])


def sighting(plan: Plan, events: Sequence[Event], verdict: Verdict, kernel: str) -> Sighting:
    """The same from values."""
    nic = plan.nics[0]
    plugged = _first(events, "reply", execute="device_add")
    bound = _first(events, "nic", nic=nic.id)
    carrier = _first(events, "carrier", nic=nic.id, up=True)
    checks = {check.check: check for check in verdict.checks}
    hangs = "hangs" if "alive" in checks else None
    return Sighting(
        kernel=kernel,
        machine=plan.machine.machine,
        model=nic.model,
        bus=_bus(nic.bus),
        bound=_since(plugged, bound),
        carrier=_since(plugged, carrier),
        netconsole=_delivered(checks.get("delivered")),
        parity=_parity(checks.get("parity")),
        link=hangs or _follows(checks.get("carrier_follows")),
        bug=verdict.known_bug if verdict.word == "KNOWN_BUG" else None,
    )


def _first(events: Iterable[Event], kind: str, **keys: object) -> Event | None:
    return next((e for e in events if e["kind"] == kind and all(e.get(k) == v for k, v in keys.items())), None)


def _since(plugged: Event | None, seen: Event | None) -> float | None:
    return None if plugged is None or seen is None else seen["t"] - (plugged["t"] - plugged["seconds"])


def _bus(bus: str | None) -> str:
    if bus is None:
        return "PCI root"
    return "PCIe root port" if bus.startswith("rp") else "PCIe-PCI bridge"


def _delivered(check: CheckResult | None) -> str | None:
    if check is None or not check.reached:
        return None
    return "yes" if check.held else f"no: {check.why}"


def _parity(check: CheckResult | None) -> str | None:
    if check is None or not check.reached:
        return None
    lines, lost = check.numbers["lines"], check.numbers["lost"]
    if check.held:
        return f"yes, {lines} lines"
    return f"no: hangs after line {lines}" if "stopped printing" in check.why else f"no: {lost} of {lines} lines lost"


def _follows(check: CheckResult | None) -> str | None:
    """What was seen, whatever the case expected."""
    if check is None or not check.reached:
        return None
    seen, changes = check.numbers["seen"], check.numbers["changes"]
    if seen == changes:
        return f"yes, within {check.numbers['slowest']:.1f} s"
    return "no" if not seen else f"{seen} of {changes} changes"


def merged(sightings: Iterable[Sighting]) -> list[Sighting]:
    """One for each kernel, machine and model, in the order of MODELS; what an earlier case showed stays."""
    found: dict[tuple[str, str, str], Sighting] = {}
    for each in sightings:
        key = (each.kernel, each.machine, each.model)
        found[key] = _both(found[key], each) if key in found else each
    order = list(MODELS)
    return sorted(found.values(), key=lambda each: (each.kernel, each.machine, order.index(each.model)))


def _both(first: Sighting, second: Sighting) -> Sighting:
    missing = [field.name for field in fields(Sighting) if getattr(first, field.name) is None]
    return replace(first, **{name: getattr(second, name) for name in missing})


def _table(sightings: Sequence[Sighting]) -> Iterator[str]:
    yield "| " + " | ".join(HEAD) + " |"
    yield "|" + "---|" * len(HEAD)
    for each in sightings:
        model = MODELS[each.model]
        cells = (
            f"`{each.model}`",
            _device(model.device, model.properties),
            model.driver,
            each.bus,
            _seconds(each.bound),
            _seconds(each.carrier),
            each.netconsole or "",
            each.parity or "",
            each.link or "",
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _device(device: str, properties: Mapping[str, str | bool]) -> str:
    """As `-device` takes it."""
    return ",".join([device, *(f"{key}={_word(value)}" for key, value in properties.items())])


def _word(value: str | bool) -> str:
    return value if isinstance(value, str) else "on" if value else "off"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _bugs(sightings: Sequence[Sighting]) -> Iterator[str]:
    """Why, where a testcase knows it."""
    known = [each for each in sightings if each.bug]
    if known:
        yield ""
    for each in known:
        yield f"- `{each.model}`: {each.bug}"
