"""The map of the whole thing: load -> plan -> prepare -> with a testbed: conduct -> judge -> report.

    testcases/*.yaml --load--> Scenario --compile--> Plan --prepare--> Job --conduct--> evidence --judge--> Verdict --> report
                     scenario           plan         images, testbed       a process of its own    judge (pure)

Each arrow is one function here, takes one frozen value and returns the next; only this module sees all of them. Two doors lead
here: `harness.cli` and `harness.pytest_plugin`.
"""

from __future__ import annotations

import asyncio
import datetime
import importlib.metadata
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import images
from harness.case import Job
from harness.inject.npcrash import CrashFile
from harness.judge.judge import judge
from harness.judge.model import Verdict
from harness.observe.events import read_evidence
from harness.plan.compile import compile_plan
from harness.plan.model import DiskPlan, Load, MachinePlan, Plan, Wires
from harness.plan.sockets import needs_sockets, over_sockets
from harness.report import pcapng, store
from harness.scenario.load import Loaded, load_tree
from harness.scenario.model import Scenario
from harness.scenario.on_nic import on_nic
from harness.testbed import wires
from harness.testbed.accel import Probe, probe
from harness.testbed.capacity import require_memory
from harness.testbed.channels import Login
from harness.testbed.config import Config, read_config, require
from harness.testbed.errors import TestbedError
from harness.testbed.own_guest import OwnGuest
from harness.testbed.qemu import Accel, Boot
from harness.testbed.template import Ingredients, ensure
from harness.zygote import From, Zygote

Say = Callable[[str], None]
LAPS = ("prepare", "process", "judge", "report")  # the parts of `Bench.run`


@dataclass(frozen=True)
class Options:
    """What the command line decides for all cases of a run."""

    results: Path
    accel: Accel | None = None  # None: probe
    qemu: Path | None = None  # None: the image's own
    kernel: str | None = None  # overrides the testcases' kernel: a name, or the path of a kernel of one's own
    modules: Path | None = None  # the modules of that kernel
    nic: str | None = None  # overrides the models of the testcases' NICs
    mirror: str = ""  # where images come from, if not from the host's own apt sources
    cache: Path = field(default_factory=images.cache_root)
    wires: Wires | None = None  # None: taps where they can be had
    originals: str | None = None  # where copies of warm machines are to be had: harness.originals
    fresh: bool = False  # every machine is restored, none copied from one that is warm


def load(paths: Sequence[Path], options: Options, say: Say = lambda _text: None) -> list[Plan]:
    """Every case below `paths`, planned; `say` is told which testcases `--nic` leaves out. Raises ScenarioErrors with all that is
    wrong, before anything is started."""
    loaded = load_tree(paths, known_kernels=images.kernel_names())
    if options.nic is not None:
        loaded, left_out = on_nic(loaded, options.nic)
        for testcase, why in {case.partition("[")[0]: why for case, why in left_out.items()}.items():
            say(f"not on {options.nic}: {testcase}: {why}")
    joined = choice(options).wires
    plans = [_planned(case, options.kernel) for case in loaded]
    plans = [over_sockets(plan) if joined == "dgram" or needs_sockets(plan) else plan for plan in plans]
    given = [*(("--kernel", options.kernel) if options.kernel else ())]
    given += ["--modules", str(options.modules)] if options.modules else []
    given += ["--nic", options.nic] if options.nic else []
    given += ["--wires", options.wires] if options.wires else []
    given += ["--fresh"] if options.fresh else []
    return [plan.model_copy(update={"options": tuple(given)}) for plan in plans]


def choice(options: Options) -> wires.Choice:
    """What joins guest and host, and why it is no tap if it is none."""
    return wires.available() if options.wires is None else wires.Choice(options.wires, "asked for")


def _planned(case: Loaded, kernel: str | None) -> Plan:
    plan = compile_plan(_with_kernel(case.scenario, kernel), case.source)
    return plan.model_copy(update={"includes": case.includes, "expect_at": case.expect})


def _with_kernel(scenario: Scenario, kernel: str | None) -> Scenario:
    """The scenario on the command line's kernel, so that its known bugs are looked up for that one, too."""
    if kernel is None:
        return scenario
    return scenario.model_copy(update={"guest": scenario.guest.model_copy(update={"kernel": kernel})})


class Bench:
    """Prepared images, templates and the zygote, shared by the cases of one run in one process."""

    def __init__(self, options: Options, say: Say) -> None:
        self.options = options
        self._say = say
        self._zygote = Zygote()
        self._builder = images.Builder(
            store=images.Store(options.cache), progress=images.PlainText(), mirror=options.mirror
        )
        self._qemu: images.Qemu | None = None
        self._probe: Probe | None = None
        self._crash_files: dict[str, CrashFile] = {}  # by kernel
        self._configs: dict[str, Config | None] = {}  # by kernel
        self._ingredients: dict[str, Ingredients] = {}  # by machine
        self._forkable: Path | None = None
        self._asked_forkable = False
        self.laps: dict[str, float] = {}  # seconds that the parts of the last `run` took

    def qemu(self) -> images.Qemu:
        """Raises images.ImageError."""
        if self._qemu is None:
            path = self.options.qemu
            self._qemu = images.qemu_at(path) if path else images.ensure_qemu(self._builder)
        return self._qemu

    def accel(self, kernel: images.Kernel) -> Probe:
        if self._probe is None:
            if self.options.accel is not None:
                self._probe = Probe(self.options.accel, "asked for")
            else:
                self._probe = probe(self.qemu().argv, kernel.vmlinux, self.options.cache)
                self._say(f"accelerator: {self._probe.accel} ({self._probe.why})")
        return self._probe

    def ingredients(self, machine: MachinePlan) -> Ingredients:
        """What the machine's template is made of, looked up once a run; builds the images that are missing. Raises images.ImageError, and
        TestbedError for a disk or key that is not there."""
        key = machine.model_dump_json()
        known = self._ingredients.get(key)
        if known is None or (known.boot is not None and not known.boot.initrd.exists()):  # somebody removed old images
            own = machine.disk
            self._ingredients[key] = (
                self._our_ingredients(machine) if own is None else self._own_ingredients(machine, own)
            )
        return self._ingredients[key]

    def _our_ingredients(self, machine: MachinePlan) -> Ingredients:
        kernel = self.kernel(machine.kernel)
        guest = images.ensure_guest(kernel, self._builder)
        capture = images.ensure_capture(kernel, self._builder) if machine.capture else None
        qemu = self.qemu()
        return Ingredients(
            qemu=qemu.argv,
            qemu_digest=qemu.digest,
            accel=self.accel(kernel).accel,
            machine=machine,
            boot=Boot(kernel.vmlinux, guest.initrd, capture.archive if capture else None),
            image_digest="-".join((kernel.digest, guest.digest, *((capture.digest,) if capture else ()))),
            login=Login("root", guest.client_key, guest.host_key.read_text()),
        )

    def _own_ingredients(self, machine: MachinePlan, disk: DiskPlan) -> Ingredients:
        """For a guest that we did not build; our kernel only tells whether KVM runs."""
        qemu = self.qemu()
        own = OwnGuest(Path(disk.path), qemu.img_argv)
        return Ingredients(
            qemu=qemu.argv,
            qemu_digest=qemu.digest,
            accel=self.accel(self.kernel(images.DEFAULT_KERNEL)).accel,
            machine=machine,
            boot=None,
            image_digest=own.identity(),
            login=login_of(disk),
            own=own,
        )

    def kernel(self, name: str) -> images.Kernel:
        """The kernel that a testcase names, or the command line's own. Raises images.ImageError."""
        if name == self.options.kernel and is_path(name):
            return images.kernel_at(Path(name), self.options.modules, self._builder)
        return images.ensure_kernel(name, self._builder)

    def require(self, plans: Sequence[Plan]) -> None:
        """Raises KernelLacks if a kernel lacks what one of the plans needs, as far as its configuration is known; ImageError."""
        ours = [plan for plan in plans if plan.machine.disk is None]
        for name in dict.fromkeys(plan.machine.kernel for plan in ours):
            kernel = self.kernel(name)
            if name not in self._configs:
                self._configs[name] = read_config(kernel.config, kernel.vmlinux)
            its = [plan for plan in ours if plan.machine.kernel == name]
            require(its, f"{name} (Linux {kernel.release})", self._configs[name], kernel.modules is not None)

    def prepare(self, plan: Plan) -> Job:
        """Images and template for the plan; the folder is chosen by `run`. Raises ImageError or TestbedError."""
        self.require([plan])
        require_memory(plan.machine.memory)
        ingredients = self.ingredients(plan.machine)
        template = asyncio.run(ensure(self.options.cache, ingredients, self._say))
        versions = {
            "harness": importlib.metadata.version("netpoll-harness"),
            "qemu": self.qemu().version,
            "kernel": str(template.hello["release"]),
            "guest_python": str(template.hello["python"]),
            "accel": ingredients.accel,
            "image": ingredients.image_digest,
            "template": ingredients.digest(),
            "wires": plan.wires if plan.wires == "tap" else f"{plan.wires}: {choice(self.options).why}",
        }
        tool = images.ensure_makedumpfile(self._builder) if plan.scenario.dump is not None else None
        gdb = images.ensure_gdb(self._builder) if plan.scenario.debugger is not None else None
        return Job(plan, ingredients, template, Path(), versions, self.crash_module(plan), tool, gdb)

    def with_capture(
        self, job: Job, ensure_capture: Callable[[images.Kernel, images.Builder], images.CaptureImage]
    ) -> Job:
        """The same job with another capture kernel's archive, and a template of its own. Raises as `prepare`."""
        machine, before = job.plan.machine, job.ingredients
        assert before.boot is not None  # only guests that we build capture
        made = ensure_capture(self.kernel(machine.kernel), self._builder)
        digest = f"{before.image_digest}-{made.digest}"
        changed = replace(before, boot=replace(before.boot, more=made.archive), image_digest=digest)
        return replace(job, ingredients=changed, template=asyncio.run(ensure(self.options.cache, changed, self._say)))

    def crash_module(self, plan: Plan) -> CrashFile | None:
        """The module that the plan loads into its guest; what it lacks makes the case inconclusive and is no error."""
        if not any(isinstance(action, Load) for stage in plan.stages for action in stage.actions):
            return None
        if plan.machine.disk is not None:
            return CrashFile(None, "npcrash.ko is built for kernels that we have, not for that of a disk")
        name = plan.machine.kernel
        if name not in self._crash_files:
            try:
                module = images.ensure_crash_module(self.kernel(name), self._builder)
                self._crash_files[name] = CrashFile(module.path)
            except images.ImageError as error:
                self._crash_files[name] = CrashFile(None, str(error))
        return self._crash_files[name]

    def run(self, plan: Plan, cold: bool = False, fresh: bool = False) -> tuple[Verdict, Path]:
        """One case: from the template to a verdict, with its folder written. Raises as `prepare`, and RuntimeError when the
        case's process could not even write evidence. `cold`: boot the guest instead of restoring it; `fresh`: restore it and do not copy
        one."""
        at = [time.monotonic()]
        job = self.prepare(plan)
        folder = store.new_case(self.options.results, plan, job.versions)
        at.append(time.monotonic())
        self._zygote.run(replace(job, folder=folder, cold=cold), None if fresh else self.copies())
        at.append(time.monotonic())
        events = list(read_evidence(folder / "evidence.jsonl"))
        verdict = judge(plan, events)
        at.append(time.monotonic())
        store.write_verdict(folder, verdict)
        with suppress(OSError):  # the taps' own captures stay
            pcapng.merge(folder, plan, events)
        at.append(time.monotonic())
        self.laps = dict(zip(LAPS, (end - start for start, end in pairwise(at)), strict=True))
        return verdict, folder

    def copies(self) -> From | None:
        """Where this run's copies come from, if its cases are to be copied and can be."""
        if self.options.fresh or (library := self.forkable()) is None:
            return None
        return From(self.options.originals, library)

    def forkable(self) -> Path | None:
        """What makes machines that can be copied; None without a compiler: then each is restored."""
        if not self._asked_forkable:
            self._asked_forkable = True
            try:
                self._forkable = images.ensure_forkable(self._builder)
            except images.ImageError as error:
                self._say(f"each case's machine is restored, not copied, which takes longer: {error}")
        return self._forkable

    def start(self) -> None:
        """Start the process that starts cases, while this one has a single thread."""
        self._zygote.start()

    def close(self) -> None:
        self._zygote.close()


@contextmanager
def bench(options: Options, say: Say) -> Iterator[Bench]:
    """A Bench that ends with the context."""
    made = Bench(options, say)
    try:
        yield made
    finally:
        made.close()


def login_of(disk: DiskPlan) -> Login:
    """Raises TestbedError for keys that are not there."""
    host_key = disk.host_key
    try:
        if " " not in host_key.strip():
            host_key = Path(host_key).read_text()
        Path(disk.key).open().close()
    except OSError as error:
        raise TestbedError(
            f"{error.filename}: {error.strerror}", "guest.ssh takes paths relative to the testcase's folder"
        ) from error
    return Login(disk.user, Path(disk.key), host_key)


def is_path(kernel: str) -> bool:
    """Whether `--kernel` names a file and not a recipe: recipes' names have no slash."""
    return "/" in kernel or kernel not in images.kernel_names()


def results_folder(root: Path | None) -> Path:
    """Where a run's evidence goes: `root`, or runs/<UTC time> below the current directory."""
    if root is not None:
        return root.absolute()
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    return Path.cwd() / "runs" / f"{stamp}-{os.getpid()}"


def folder_name(case: str) -> str:
    """A case's folder below the results: its name with what a file system or a shell may dislike replaced."""
    return re.sub(r"[^A-Za-z0-9._=,-]+", "_", case).strip("_")
