"""Records who really called whom, among the functions that the slides draw as boxes.

In: a driver, functions that are boxes besides, and a piece of code to run. Out: arrows (caller, callee), in the order of the calls. The rule
it keeps: nothing is instrumented and nothing counted by hand; the interpreter's own profile hook sees each
call, and an arrow's caller is the innermost box on the real stack.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from guest.netpoll import napi, poll, rx, send, txq
from guest.netpoll.netdevice import NetDevice

Arrow = tuple[str, str]

STACK: dict[CodeType, str] = {
    send.netpoll_send_udp.__code__: "netpoll_send_udp",
    send.netpoll_send_skb.__code__: "netpoll_send_skb",
    poll.netpoll_poll_dev.__code__: "netpoll_poll",
    rx.netpoll_rx.__code__: "netpoll_rx",
    napi.netif_rx.__code__: "netif_rx",
    napi.netif_rx_schedule.__code__: "netif_rx_schedule",
    napi.net_rx_action.__code__: "net_rx_action",
    napi.netif_receive_skb.__code__: "netif_receive_skb",
    txq.netpoll_queue.__code__: "netpoll_queue",
}


def boxes_of(driver: type[NetDevice]) -> dict[CodeType, str]:
    """A driver's operations, under the names that the slides have for them."""
    names = {
        "hard_start_xmit": "dev->hard_start_xmit",
        "poll": "dev->poll",
        "poll_controller": "dev->poll_controller",
        "interrupt": "irq routine",
    }
    return {getattr(driver, name).__code__: box for name, box in names.items()}


@contextmanager
def recorded(driver: type[NetDevice], also: Mapping[CodeType, str] | None = None) -> Iterator[list[Arrow]]:
    """The arrows of what runs inside; a caller that is no box is "" (the world outside the diagram)."""
    boxes = STACK | boxes_of(driver) | dict(also or {})
    arrows: list[Arrow] = []

    def profile(frame: FrameType, event: str, _arg: Any) -> None:  # as sys.setprofile has it
        if event == "call" and frame.f_code in boxes:
            arrows.append((_caller(frame, boxes), boxes[frame.f_code]))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield arrows
    finally:
        sys.setprofile(before)


def _caller(frame: FrameType, boxes: dict[CodeType, str]) -> str:
    above = frame.f_back
    while above is not None:
        if above.f_code in boxes:
            return boxes[above.f_code]
        above = above.f_back
    return ""
