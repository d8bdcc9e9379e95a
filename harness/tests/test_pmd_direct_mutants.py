"""Seeded defects of guest/netpoll/direct.py and of runs' descriptors: the comparison of pmd_pair.py sees each."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from guest.netpoll.frame import Message
from guest.netpoll.lanes import series
from guest.netpoll.layout.e1000 import TxSta
from harness.mutants.defect import Defect, each, seeded
from harness.tests.pmd_pair import compare


class _Sticky(list[Any]):
    """Stamps that nobody takes away."""

    def __setitem__(self, at: Any, value: Any) -> None:
        if value is not None and not isinstance(at, slice):
            super().__setitem__(at, value)


class _RunsOnly(list[Any]):
    """Stamps of runs that no single message takes away."""

    def __setitem__(self, at: Any, value: Any) -> None:
        before = None if isinstance(at, slice) else self[at]
        if before is None or before[0] is not None:
            super().__setitem__(at, value)


def _stamps(kind: type[list[Any]], sound: Any) -> Any:
    def init(self: Any, *args: Any, **keys: Any) -> None:
        sound(self, *args, **keys)
        self.stamps = kind(self.stamps)

    return init


def _always_room(_sound: Any) -> Any:
    def make_room(self: Any) -> bool:
        self.tx.room = self.tx.next_to_use + 64
        return True

    return make_room


def _never_odd(sound: Any) -> Any:
    return lambda self, size: (*sound(self, size)[:-1], False)


def _tail_first(sound: Any) -> Any:
    def make(np: Any, dev: Any, npinfo: Any, tx: Any, template: Any) -> Any:
        inner = sound(np, dev, npinfo, tx, template)

        def xmit(message: Message) -> bool:
            if not dev.xoff and tx.ring.next_to_use < tx.ring.room:
                tx.index[tx.at] = tx.ring.next_to_use + 1 & tx.wrap
            return bool(inner(message))

        return xmit

    return make


def _made_once(sound: Any) -> Any:
    made: dict[int, Any] = {}
    return lambda np, dev, npinfo: made.setdefault(id(np), sound(np, dev, npinfo))


def _done_stays(_sound: Any) -> Any:
    def clean_tx(self: Any) -> None:
        ring = self.tx
        while ring.in_flight() and self._tx_status[ring.next_to_clean & ring.mask] & TxSta.DD:
            ring.next_to_clean += 1

    return clean_tx


def _deaf(sound: Any) -> Any:
    class Deaf:
        """Does not hear each tenth ring."""

        def __init__(self, real: Any) -> None:
            self.real, self.due = real, each(10)

        def __setitem__(self, at: int, value: int) -> None:
            if not self.due():
                self.real[at] = value

    return lambda store, *rest: sound(Deaf(store), *rest)


def _queue_overtaken(sound: Any) -> Any:
    """It does not see that something is queued."""

    def make(np: Any, dev: Any, _npinfo: Any, tx: Any, template: Any) -> Any:
        return sound(np, dev, SimpleNamespace(txq=(), tries=0, max_retries=0), tx, template)

    return make


def _anywhere(sound: Any) -> Any:
    """A run's stamp does not say which slot it began with."""
    return lambda self, _slot, stride, size: sound(self, 0, stride, size)


def _any_length(sound: Any) -> Any:
    return lambda self, slot, _stride, _size: sound(self, slot, 0, 0)


def _counts_on(_sound: Any) -> Any:
    return lambda values, count: series(values[0], (1 << 48) - 1, count)


def _even_runs(sound: Any) -> Any:
    return lambda messages, base: sound(
        [b"\0" + message if len(message) & 1 else message for message in messages], base
    )


PMD, DIRECT = "guest.netpoll.drivers.pmd", "guest.netpoll.direct"
DEFECTS = (
    ("e1000", Defect("stamps stay when others use the slot", f"{PMD}.ring.Ring.__init__", partial(_stamps, _Sticky), "", "")),
    ("tg3", Defect("a full ring is written over", f"{PMD}.device.PollModeDevice.make_room", _always_room, "", "")),
    ("virtio-net", Defect("odd lengths are summed as even ones", "guest.netpoll.frame.FrameV4.shape", _never_odd, "", "")),
    ("tg3", Defect("the tail is written before the frame", f"{DIRECT}._make", _tail_first, "", "")),
    ("e1000", Defect("a new address is not noticed", "guest.netpoll.core.direct_xmit", _made_once, "", "")),
    ("e1000", Defect("a descriptor says done before it is", f"{PMD}.e1000.E1000.clean_tx", _done_stays, "", "")),
    ("tg3", Defect("a run's stamp does not say where it began", f"{PMD}.device.PollModeDevice._lay", _anywhere, "", "")),
    ("e1000", Defect("a run's stamp does not say how long it is", f"{PMD}.device.PollModeDevice._lay", _any_length, "", "")),
    ("virtio-net", Defect("a run's stamps stay when one message takes a slot", f"{PMD}.ring.Ring.__init__", partial(_stamps, _RunsOnly), "", "")),
    ("tg3", Defect("a run counts on beyond 16 bits", "guest.netpoll.frame.column", _counts_on, "", "")),
    ("e1000", Defect("a run of an odd length is summed as an even one", "guest.netpoll.frame.checksums", _even_runs, "", "")),
    ("virtio-net", Defect("each tenth bell is not rung", f"{PMD}.virtio_net.Bell", _deaf, "", "")),
    ("virtio-net", Defect("tries are not restored, what is queued is overtaken", f"{DIRECT}._make", _queue_overtaken, "", "")),
)  # fmt: skip


@pytest.mark.parametrize(("model", "defect"), DEFECTS, ids=[defect.name for _, defect in DEFECTS])
def test_a_defect_of_the_direct_way_is_seen(model: str, defect: Defect) -> None:
    with seeded(defect), pytest.raises(AssertionError, match=r"step \d+ of seed"):
        [compare(model, seed) for seed in range(6)]
