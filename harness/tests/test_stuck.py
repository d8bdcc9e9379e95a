"""A guest that hangs is named by function: from QEMU's registers and memory over symbols to the judge's sentence."""

from __future__ import annotations

import asyncio
import base64
import zlib

import pytest

from harness.judge.records import parse as parse_events
from harness.judge.whereabouts import whereabouts
from harness.observe.stuck import Rest, backtrace, parse_registers, rest_of_panic
from harness.testbed.symbols import parse, unpack

KALLSYMS = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000100 t panic
ffffffff81000100 t panic_alias
ffffffff81000400 T delay_tsc
ffffffff82000000 D some_data
ffffffffc0000000 t e1000_clean\t[e1000]
ffffffffc0010000 t netpoll_send_skb	[netpoll]
ffffffffc0020000 t synchronize_irq
ffffffffc0020100 t poll_tulip	[tulip]
nonsense
""".splitlines()
SYMBOLS = parse(KALLSYMS)

REGISTERS = """\

CPU#0
RAX=0000000000000000 RBX=0000000000000001 RCX=0000000000000002 RDX=0000000000000003
RSI=0000000000000000 RDI=0000000000000000 RBP=0000000000000000 RSP=ffffc90000123d00
RIP=ffffffff81000433 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
CPU#1
RSI=0000000000000000 RDI=0000000000000000 RBP=0000000000000000 RSP=ffffc90000456d00
RIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
"""


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0xFFFFFFFF81000433, "delay_tsc+0x33"),
        (0xFFFFFFFF81000100, "panic+0x0"),
        (0xFFFFFFFFC0000012, "e1000_clean+0x12 [e1000]"),
        (0xFFFFFFFF80FFFFFF, None),
        (0xFFFFFFFF8FFFFFFF, None),
        (0, None),
    ],
)
def test_an_address_becomes_a_name(address: int, name: str | None) -> None:
    assert SYMBOLS.resolve(address) == name


def test_registers_of_every_cpu() -> None:
    assert parse_registers(REGISTERS) == [
        {"cpu": 0, "rip": 0xFFFFFFFF81000433, "rsp": 0xFFFFC90000123D00, "halted": False},
        {"cpu": 1, "rip": 0xFFFFFFFF81000000, "rsp": 0xFFFFC90000456D00, "halted": True},
    ]
    assert parse_registers("Error: no CPU available") == []


def test_a_stack_is_its_return_addresses() -> None:
    memory = (
        "ffffc90000123d00: 0xffffffff81000120 0x0000000000000007\n"
        "ffffc90000123d10: 0xffffffff81000120 0xffffffffc0000099\n"
        "ffffc90000123d20: 0xffffc90000123d30 0xffffffff81000400\n"
    )
    assert backtrace(memory, SYMBOLS) == ["panic+0x20", "e1000_clean+0x99 [e1000]"]


def test_symbols_travel_packed_and_bounded() -> None:
    text = "\n".join(KALLSYMS)
    assert unpack(base64.b64encode(zlib.compress(text.encode())).decode()) == text
    bomb = base64.b64encode(zlib.compress(b"x" * (64 << 20))).decode()
    for bad in ("no base64!", base64.b64encode(b"no zlib").decode(), bomb):
        with pytest.raises(ValueError, match=r".+"):
            unpack(bad)


def look(sample: int, where: str | None, stack: list[str]) -> dict[str, object]:
    return {
        "t": sample,
        "src": "qmp",
        "kind": "stuck",
        "why": "",
        "sample": sample,
        "cpu": 0,
        "rip": "0x1",
        "where": where,
        "halted": False,
        "stack": stack,
    }


def test_one_place_each_time_is_a_hang_there() -> None:
    records = parse_events(
        [look(0, "vmxnet3_poll+0x1", []), look(1, "vmxnet3_poll+0x1", ["netpoll_poll_dev+0x9", "panic+0x20"])]
    )
    assert whereabouts(records) == [
        "CPU 0 was at vmxnet3_poll+0x1 each of 2 times; called from netpoll_poll_dev+0x9 <- panic+0x20"
    ]


def test_several_places_are_a_loop() -> None:
    records = parse_events([look(0, "delay_tsc+0x33", []), look(1, None, [])])
    assert whereabouts(records) == ["CPU 0 was moving, in delay_tsc+0x33, 0x1"]


ON_PANICS_STACK = "ffffc90000123d00: 0x0000000000000003 0xffffffff81000110"
IN_DISABLE_IRQ = "ffffc90000123d00: 0xffffffffc0020033 0xffffffffc0020110"
ON_NETPOLLS_STACK = "ffffc90000123d00: 0xffffffffc0010020 0xffffffff81000110"


@pytest.mark.parametrize(
    ("registers", "stack", "rest"),
    [
        pytest.param(REGISTERS, ON_PANICS_STACK, Rest.LOOPS, id="panic waits, the other CPU is halted"),
        pytest.param(REGISTERS, ON_NETPOLLS_STACK, Rest.SENDS, id="netpoll waits for the driver, called by panic"),
        pytest.param(REGISTERS.replace("HLT=1", "HLT=0"), ON_PANICS_STACK, Rest.SENDS, id="the other CPU still runs"),
        pytest.param(REGISTERS.replace("81000433", "81000110"), "", Rest.LOOPS, id="in panic itself"),
        pytest.param(REGISTERS.replace("HLT=0", "HLT=1"), ON_PANICS_STACK, Rest.HALTS, id="each CPU is halted"),
        pytest.param(
            REGISTERS.replace("ffffffff81000433", "ffffffffc0000012"), ON_PANICS_STACK, Rest.SENDS, id="in a driver"
        ),
        pytest.param(
            REGISTERS.replace("ffffffff81000433", "0000000000401000"), ON_PANICS_STACK, Rest.SENDS, id="in no function"
        ),
        pytest.param(REGISTERS, IN_DISABLE_IRQ, Rest.SPINS, id="a driver's poll_controller waits for an interrupt"),
        pytest.param(
            REGISTERS.replace("HLT=1", "HLT=0"), IN_DISABLE_IRQ, Rest.SENDS, id="which the other CPU may serve"
        ),
        pytest.param("Error: no CPU available", ON_PANICS_STACK, Rest.SENDS, id="no CPU"),
    ],
)
def test_a_panic_is_over_when_no_cpu_can_send_any_more(registers: str, stack: str, rest: Rest) -> None:
    async def hmp(command: str) -> str:
        return registers if command == "info registers -a" else stack if command.endswith("0xffffc90000123d00") else ""

    assert asyncio.run(rest_of_panic(hmp, SYMBOLS)) is rest
