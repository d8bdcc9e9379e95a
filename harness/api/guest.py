"""A guest in a test's hands: its topology first, then steps as they come, then the verdict.

    guest -- nic(), bond(), netconsole(), netpoll() --> Scenario -- the first step --> Session -- do() ... --> judge() -> Verdict

In: calls. Out: what was seen, and at the end the folder of a case like any other. Rule: steps and expectations are a testcase's own, in its
words and checked by its checks, so the judge and every report know them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.api.session import Session
from harness.judge.model import Verdict
from harness.judge.records import Event
from harness.observe.events import read_evidence
from harness.plan.compile import compile_plan
from harness.plan.model import Plan
from harness.plan.steps import step_stage
from harness.report import pcapng, store
from harness.run import Bench
from harness.scenario.checks import check
from harness.scenario.model import Expect, Scenario, Step

Data = Mapping[str, Any]


class ApiError(Exception):
    """A call that cannot be carried out; the message says why, and what can."""


@dataclass(frozen=True)
class Nic:
    """A NIC of the guest, by its name in the testcase."""

    id: str


@dataclass(frozen=True)
class Bond:
    """A bond of the guest."""

    id: str
    slaves: tuple[Nic, ...]


@dataclass(frozen=True)
class Flow:
    """Two endpoints: `sender` in the guest, `receiver` on the host's tap."""

    sender: str
    receiver: str


@dataclass(frozen=True)
class Ran:
    """What a command in the guest came to."""

    rc: int
    out: str
    err: str


@dataclass
class Guest:
    """Made by the fixture `guest`. Topology can be added until the first step, which starts the guest."""

    bench: Bench
    name: str
    about: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)  # keys of a testcase's `guest`: kernel, machine, sysctl...
    verdict: Verdict | None = None
    _nics: dict[str, Data] = field(default_factory=dict)
    _bonds: dict[str, Data] = field(default_factory=dict)
    _endpoints: dict[str, Data] = field(default_factory=dict)
    _sends: list[Data] = field(default_factory=list)
    _steps: list[Step] = field(default_factory=list)
    _plan: Plan | None = None
    _session: Session | None = None

    # ---- topology

    def nic(self, model: str = "virtio-net", **keys: Any) -> Nic:
        """A NIC on a tap of its own. `keys`: a testcase's, such as mtu, mac, properties."""
        self._open_still()
        made = Nic(f"n{len(self._nics)}")
        self._nics[made.id] = {"model": model, **keys}
        return made

    def bond(self, mode: str, *slaves: Nic, **keys: Any) -> Bond:
        """A bond of NICs. `keys`: miimon, options."""
        self._open_still()
        made = Bond(f"bond{len(self._bonds)}", slaves)
        self._bonds[made.id] = {"mode": mode, "slaves": [slave.id for slave in slaves], "miimon": 100, **keys}
        return made

    def netconsole(self, device: Nic | Bond, **keys: Any) -> Flow:
        """The guest kernel's netconsole to an endpoint of ours. `keys`: extended."""
        return self._flow("kernel", device, keys)

    def netpoll(self, device: Nic | Bond, sends: Mapping[str, Data] | None = None, **keys: Any) -> Flow:
        """Our stack at both ends. `sends`: by label, what will be sent, as in a testcase's step ({"count": 100, "interval": 0.01});
        the receiver must know beforehand, since it compares byte for byte. `keys`: on_drop, driver, sndbuf."""
        made = self._flow("netpoll", device, keys)
        self._sends += [{"from": made.sender, "label": label, **send} for label, send in (sends or {}).items()]
        return made

    def _flow(self, stack: str, device: Nic | Bond, keys: Data) -> Flow:
        self._open_still()
        number = len(self._endpoints) // 2
        made = Flow(f"sender{number}", f"receiver{number}")
        self._endpoints[made.sender] = {
            "at": "guest",
            "stack": stack,
            "device": device.id,
            "peer": made.receiver,
            **keys,
        }
        self._endpoints[made.receiver] = {"at": "host", "stack": "netpoll", "device": device.id, "peer": made.sender}
        return made

    def _open_still(self) -> None:
        if self._session is not None:
            raise ApiError("the guest is up: NICs, bonds and flows are made before the first step")

    # ---- steps

    def do(self, step: Data) -> None:
        """One step in a testcase's words: {"inject": {"link": "n0", "state": "down"}}. Raises ValidationError, TestbedError."""
        made = Step.model_validate(step)
        plan, session = self._up()
        self._steps.append(made)
        stage = step_stage(len(self._steps), made, self._scenario(self._steps))
        self._plan = plan.model_copy(update={"stages": (*plan.stages, stage)})
        session.do(stage)

    def link(self, nic: Nic, up: bool) -> None:
        """Put the cable back, or pull it (QMP set_link)."""
        self.do({"inject": {"link": nic.id, "state": "up" if up else "down"}})

    def send(self, label: str, background: bool = False) -> None:
        """A send that `netpoll` was told of."""
        found = next((send for send in self._sends if send["label"] == label), None)
        if found is None:
            raise ApiError(f"nobody said what {label!r} sends: netpoll(device, sends={{{label!r}: {{'count': 100}}}})")
        self.do({"send": {**found, "background": background}})

    def kmsg(self, flow: Flow, count: int, **keys: Any) -> None:
        """Numbered lines to /dev/kmsg, for netconsole. `keys`: size, interval, seed, label, background."""
        self.do({"send": {"from": flow.sender, "count": count, **keys}})

    def wait(self, **wait: Any) -> bool:
        """Until this is seen, in a testcase's words (carrier="n0", state="down", within=5); whether it came."""
        self.do({"wait": wait})
        last = [event for event in self.events() if event["src"] == "await"][-1:]
        return bool(last and last[0]["kind"] == "reached")

    def run(self, *argv: str, may_fail: bool = False, within: float = 15) -> Ran:
        """A command in the guest."""
        self.do({"run": {"argv": list(argv), "may_fail": may_fail, "within": within}})
        told = [event for event in self.events() if (event["src"], event["kind"]) == ("guest", "run")][-1]
        return Ran(told["rc"], told["out"], told["err"])

    def crash(self, how: str = "sysrq-c", **keys: Any) -> None:
        """The end of the guest."""
        self.do({"crash": {"how": how, **keys}})

    # ---- what is known

    @property
    def folder(self) -> Path:
        """The case's folder."""
        return self._up()[1].folder

    def events(self) -> list[Event]:
        """All evidence so far."""
        return list(read_evidence(self.folder / store.EVIDENCE))

    def console(self) -> list[str]:
        """Lines of the serial console so far."""
        return [event["text"] for event in self.events() if event["src"] == "console"]

    def received(self, flow: Flow) -> list[Event]:
        """What came to the flow's receiver so far."""
        return [e for e in self.events() if e["kind"] == "rx" and e.get("endpoint") == flow.receiver]

    def carrier(self, device: Nic | Bond) -> bool | None:
        """As the guest last told; None if it never did."""
        told = [e["up"] for e in self.events() if e["kind"] == "carrier" and e.get("nic") == device.id]
        return told[-1] if told else None

    # ---- the end

    def judge(self, *expect: Data) -> Verdict:
        """End the case and judge it by these expectations, in a testcase's words. Raises ApiError for one that makes no sense here."""
        wanted = [Expect.model_validate(each) for each in expect]
        plan, session = self._up()
        scenario = self._scenario(self._steps).model_copy(update={"expect": tuple(wanted)})
        wrong = [f"{'.'.join(map(str, each.path))}: {each.what}; {each.remedy}" for each in check(scenario)]
        session.close()
        plan = plan.model_copy(update={"scenario": scenario, "expect": tuple(wanted)})
        store.write_text(session.folder / store.PLAN, plan.model_dump_json(indent=1, by_alias=True))
        if wrong:
            raise ApiError("\n".join(wrong))
        verdict = store.rejudge(session.folder)
        store.write_verdict(session.folder, verdict)
        pcapng.merge(session.folder, plan, self.events())
        self.verdict, self._plan = verdict, plan
        return verdict

    @property
    def plan(self) -> Plan:
        """The plan so far."""
        return self._up()[0]

    def end(self) -> None:
        """Whatever happened, nothing of it stays."""
        if self._session is not None:
            self._session.kill()

    def _up(self) -> tuple[Plan, Session]:
        """The guest, started with the first step."""
        if self._plan is None or self._session is None:
            sends = [Step.model_validate({"send": send}) for send in self._sends]
            whole = compile_plan(self._scenario(sends), self.source)
            self._plan = whole.model_copy(update={"stages": whole.stages[:1]})
            job = self.bench.prepare(self._plan)
            folder = store.new_case(self.bench.options.results, self._plan, job.versions)
            self._session = Session(replace(job, folder=folder))
        return self._plan, self._session

    def _scenario(self, steps: Sequence[Step]) -> Scenario:
        guest = {**self.options, "nics": self._nics, "bonds": self._bonds}
        something = [{"run": {"argv": ["true"]}}]
        data = {
            "name": self.name,
            "about": self.about,
            "guest": guest,
            "endpoints": self._endpoints,
            "steps": something,
            "expect": [{"event": {"name": "SHUTDOWN"}}],  # stated at the end
        }
        made = Scenario.model_validate(data)
        return made.model_copy(update={"steps": tuple(steps)}) if steps else made
