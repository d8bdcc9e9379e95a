"""The crashed kernel's tasks, as drgn finds them in a dump; where drgn is not installed nobody says anything.

In: a dump's file, and where the kernel keeps the fields of task_struct (its own BTF says so: no debug symbols are needed). Out: (pid, comm) of each task of
init_task's list. Rule: drgn opens the dump, finds `init_task` by the kallsyms in it, and translates addresses by its page tables: nothing of ours reads
the file. It runs in a process of its own, which a damaged dump may take down.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.testbed.btf import BtfError, layout

WITHIN = 60.0  # seconds
MOST = 100_000  # tasks: a list that never comes back to its head is damaged
COMM = 16  # include/linux/sched.h, TASK_COMM_LEN
KALLSYMS = b"SYMBOL(kallsyms_names)="  # kernel/crash_core.c; in plain text in either format
FIELDS = ("tasks", "pid", "comm")


def tasks(dump: Path, vmlinux: Path) -> dict[str, Any]:
    """`list`: [pid, comm] of each task; or `absent`: why nobody looked; or `refused`: what went wrong when drgn did."""
    if importlib.util.find_spec("drgn") is None:
        return {"absent": "drgn is not installed"}
    try:
        offsets = layout(vmlinux, {"task_struct"}).offsets
        places = {field: offsets["task_struct", field] for field in FIELDS}
    except (BtfError, KeyError) as error:
        return {"absent": f"the kernel does not say what a task_struct is: {error}"}
    if KALLSYMS not in dump.read_bytes():
        return {"absent": "this kernel's VMCOREINFO does not say where kallsyms is: it does since 6.0"}
    argv = [sys.executable, "-P", __file__, str(dump), json.dumps(places)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN, check=False)
    if done.returncode:
        return {"refused": f"drgn ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()[-500:]}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def walk(dump: str, places: dict[str, int]) -> list[tuple[int, str]]:
    """From init_task around its list. Raises what drgn raises."""
    import drgn
    from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

    program = drgn.Program()
    program.set_core_dump(dump)
    head: int = load_vmlinux_kallsyms(program)(program, "init_task", None, True)[0].address
    found: list[tuple[int, str]] = []
    task = head
    while len(found) < MOST:
        pid = int.from_bytes(program.read(task + places["pid"], 4), "little")
        comm = program.read(task + places["comm"], COMM).split(b"\0")[0].decode(errors="replace")
        found.append((pid, comm))
        task = int.from_bytes(program.read(task + places["tasks"], 8), "little") - places["tasks"]
        if task == head:
            return found
    raise ValueError(f"the list of tasks has no end: {MOST} were read")


if __name__ == "__main__":
    print(json.dumps({"list": walk(sys.argv[1], json.loads(sys.argv[2]))}))
