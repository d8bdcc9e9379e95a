"""`gdbstub`: serve a dead kernel's registers and memory to a debugger: gdb's `target remote udp:ADDRESS:PORT`.

In: a vmcore, and requests. Out: replies. The rule it keeps: the vmcore is opened and its headers are read before the interface
is touched, and what it lacks is said then, not found out by the debugger.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial

from guest.netpoll.clients.gdb.server import LOCAL_PORT, REMOTE_PORT, GdbServer
from guest.netpoll.clients.gdb.session import Session
from guest.netpoll.clients.vmcore.core import Vmcore, VmcoreFile
from guest.netpoll.poll import netpoll_set_trap
from guest.netpoll.tool.session import say, session


def gdbstub(arguments: argparse.Namespace) -> bool:
    """The command. Raises OptionError, NotReadable, SetupError, DeviceGone, OSError (the vmcore)."""
    tell = partial(say, arguments.quiet)
    with VmcoreFile(arguments.vmcore) as vmcore:
        for lack in lacks(vmcore):
            tell(f"{arguments.vmcore}: {lack}")
        served = Session(vmcore, tell, idle=arguments.idle)
        server = GdbServer(served, time.monotonic)
        with session(arguments, "gdbstub", server.rx_hook, (LOCAL_PORT, REMOTE_PORT)) as current:
            if arguments.trap:
                netpoll_set_trap(current.np.net, 1)
            release = vmcore.vmcoreinfo.get("OSRELEASE", "a kernel that does not say its release")
            tell(f"serving {release}, {len(vmcore.registers)} CPUs: {current.np!r}")
            done = current.wait(lambda: arguments.once and served.counts["detached"] > 0, arguments.timeout)
        tell(f"{dict(served.close() | {'unsent': server.unsent})}")
    return done or not arguments.once


def lacks(vmcore: Vmcore) -> Iterator[str]:
    """What a debugger will miss, and why."""
    if not vmcore.registers:
        yield "no registers: without an NT_PRSTATUS note there are no threads, and gdb will not stay connected"
    if vmcore.bad_registers:
        yield f"{vmcore.bad_registers} NT_PRSTATUS notes are too short: their CPUs are left out"
    if vmcore.page_tables is None:
        yield "VMCOREINFO does not say where the page tables are: memory only where the ELF headers have virtual addresses"
    if vmcore.missing:
        yield f"cut off: {vmcore.missing} bytes of memory that the headers promise are not in the file"
