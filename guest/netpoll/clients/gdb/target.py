"""What a debugger asks of the dead kernel, and the answers: threads are CPUs, memory is the dump's, nothing can be changed.

In: a request's data. Out: the reply's data; empty for "not supported", `E01` for what cannot be. The rule it keeps: a request
changes nothing but which thread the next one is about, so any of them can be answered twice.

Requests: GDB manual, "Packets" and "General Query Packets". Thread n is the n-th CPU that has an NT_PRSTATUS note, counted
from 1: the notes' own pids are no names (every idle CPU's is 0), and a CPU that was offline has no note.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from guest.netpoll.clients.gdb.description import REGISTERS, TARGET_XML, Register
from guest.netpoll.clients.vmcore.core import Vmcore, number
from guest.netpoll.clients.vmcore.errors import NotInDump
from guest.netpoll.clients.vmcore.notes import Registers

PACKET_SIZE = 0x500  # a g reply has 600 digits; gdb cuts a datagram of more than 8192 bytes
ERROR, OK, UNSUPPORTED = b"E01", b"OK", b""
_FORMAT = "the request is not of the form that it should have"


@dataclass(frozen=True, slots=True)
class Thread:
    """One CPU. `name` is what `info threads` shows behind it."""

    id: int
    name: str
    registers: Registers


class Target:
    """Answers for one vmcore. `detached` is set by a request that ends the session (D, k)."""

    def __init__(self, vmcore: Vmcore, packet_size: int = PACKET_SIZE) -> None:
        self.vmcore = vmcore
        self.packet_size = packet_size
        self.detached = False
        self._threads = {at: _thread(at, cpu) for at, cpu in enumerate(vmcore.registers, 1)}
        self._current = 1
        self._documents = {"features:read:target.xml": TARGET_XML, "threads:read:": self._threads_xml()}

    def answer(self, request: bytes) -> bytes | None:
        """The reply to one request; None where the protocol has none. Never raises."""
        text = request.decode("latin-1")
        handler, argument = _WHOLE.get(text), ""
        if handler is None:
            prefix = next((prefix for prefix in _PREFIXES if text.startswith(prefix)), None)
            if prefix is None:
                return UNSUPPORTED
            handler, argument = _PREFIXES[prefix], text[len(prefix) :]
        try:
            return handler(self, argument)
        except (ValueError, KeyError):  # numbers that are none, threads that are not there
            return ERROR

    # -- the session

    def supported(self, _: str) -> bytes:
        """qSupported. No QStartNoAckMode: a request that is lost then is never sent again."""
        return b"PacketSize=%x;qXfer:features:read+;qXfer:threads:read+" % self.packet_size

    def detach(self, _: str) -> bytes:
        """D"""
        self.detached = True
        return OK

    def kill(self, _: str) -> None:
        """k: there is no reply"""
        self.detached = True

    def why(self, _: str) -> bytes:
        """? : stopped, by SIGTRAP as far as gdb is concerned"""
        return b"T05thread:%x;" % 1 if self._threads else b"W00"

    # -- threads

    def select(self, argument: str) -> bytes:
        """Hg, Hc: the thread that further requests are about; 0 and -1 mean any"""
        wanted = int(argument, 16)
        self._current = self._threads[wanted].id if wanted > 0 else self._current
        return OK

    def alive(self, argument: str) -> bytes:
        """T"""
        return OK if int(argument, 16) in self._threads else ERROR

    def first_threads(self, _: str) -> bytes:
        """qfThreadInfo: as many as fit; gdb since 7.5 asks qXfer:threads, which has all of them"""
        ids = [f"{thread:x}" for thread in self._threads]
        while len(text := "m" + ",".join(ids)) > self.packet_size:
            ids = ids[: len(ids) * 3 // 4]
        return text.encode() if ids else b"l"

    def extra(self, argument: str) -> bytes:
        """qThreadExtraInfo"""
        return self._threads[int(argument, 16)].name.encode().hex().encode()

    def _threads_xml(self) -> bytes:
        rows = (f'<thread id="{t.id:x}" core="{t.id - 1}">{t.name}</thread>' for t in self._threads.values())
        return ('<?xml version="1.0"?>\n<threads>\n' + "\n".join(rows) + "\n</threads>\n").encode()

    def transfer(self, argument: str) -> bytes:
        """qXfer:OBJECT:read:ANNEX:OFFSET,LENGTH"""
        name, _, window = argument.rpartition(":")
        offset, length = _two(window)
        if name not in self._documents:
            return UNSUPPORTED if name.partition(":")[0] not in ("features", "threads") else b"E00"
        part = self._documents[name][offset : offset + min(length, self.packet_size - 1)]
        return (b"m" if offset + len(part) < len(self._documents[name]) else b"l") + part

    # -- registers and memory

    def registers(self, _: str) -> bytes:
        """g"""
        values = self._threads[self._current].registers.values
        return b"".join(_digits(register, values) for register in REGISTERS)

    def register(self, argument: str) -> bytes:
        """p"""
        at = int(argument, 16)
        if not 0 <= at < len(REGISTERS):
            return ERROR
        return _digits(REGISTERS[at], self._threads[self._current].registers.values)

    def memory(self, argument: str) -> bytes:
        """m: what there is from the address on; gdb asks again for the rest"""
        address, length = _two(argument)
        data = self._readable(address, min(length, self.packet_size // 2))
        return data.hex().encode() if data or not length else ERROR

    def _readable(self, address: int, length: int) -> bytes:
        """The longest beginning that can be read: whole, or up to a page's end."""
        ends = {address + length} | set(range((address | 0xFFF) + 1, address + length, 0x1000))
        for end in sorted(ends, reverse=True):
            try:
                return self.vmcore.read_virtual(address, end - address)
            except NotInDump:
                continue
        return b""

    # -- what the host wants to know

    def offsets(self, _: str) -> bytes:
        """qOffsets: where the kernel's text really is, which moves vmlinux's symbols by the KASLR offset"""
        text = number(self.vmcore.vmcoreinfo, "SYMBOL(_stext)", 16)
        return UNSUPPORTED if text is None else b"TextSeg=%x" % text

    def monitor(self, argument: str) -> bytes:
        """qRcmd: `monitor KEY` shows what VMCOREINFO says of KEY; without, what there is to know of the dump"""
        words = bytes.fromhex(argument).decode("utf-8", "replace").split()
        text = self.vmcore.vmcoreinfo.get(words[0], f"VMCOREINFO has no {words[0]}") if words else self._about()
        return (text + "\n").encode()[: self.packet_size // 2].hex().encode()

    def _about(self) -> str:
        info, bad = self.vmcore.vmcoreinfo, self.vmcore.bad_registers
        known = [f"{key}={info[key]}" for key in ("OSRELEASE", "KERNELOFFSET", "CRASHTIME") if key in info]
        return "\n".join([*known, f"CPUs={len(self._threads)}", *([f"unreadable CPUs={bad}"] if bad else [])])


def _thread(at: int, cpu: Registers) -> Thread:
    return Thread(at, f"CPU {at - 1}, pid {cpu.pid}", cpu)


def _digits(register: Register, values: Mapping[str, int]) -> bytes:
    """Little-endian hexadecimal, or `x` for what the dump does not have."""
    if register.name not in values:
        return b"xx" * register.size
    mask = (1 << 8 * register.size) - 1
    return (values[register.name] & mask).to_bytes(register.size, "little").hex().encode()


def _two(text: str) -> tuple[int, int]:
    """`a,b` in hexadecimal, neither below zero. Raises ValueError."""
    first, comma, second = text.partition(",")
    numbers = int(first, 16), int(second, 16)
    if not comma or min(numbers) < 0 or max(numbers) >= 1 << 64:
        raise ValueError(_FORMAT)
    return numbers


def _const(reply: bytes) -> Callable[[Target, str], bytes]:
    return lambda _target, _argument: reply


Handler = Callable[[Target, str], bytes | None]
_WHOLE: dict[str, Handler] = {
    "?": Target.why,
    "g": Target.registers,
    "qC": _const(b"QC1"),
    "qfThreadInfo": Target.first_threads,
    "qsThreadInfo": _const(b"l"),
    "qOffsets": Target.offsets,
    "D": Target.detach,
    "k": Target.kill,
}
_PREFIXES: dict[str, Handler] = {
    "qSupported": Target.supported,
    "qXfer:": Target.transfer,
    "qThreadExtraInfo,": Target.extra,
    "qAttached": _const(b"1"),  # leaving gdb detaches
    "qRcmd,": Target.monitor,
    "Hg": Target.select,
    "Hc": Target.select,
    "T": Target.alive,
    "p": Target.register,
    "m": Target.memory,
    **dict.fromkeys(("G", "P", "M", "X", "c", "C", "s", "S", "vCont;", "Z", "z"), _const(ERROR)),
}
"""By the whole request, or by its beginning."""
