"""The collector's end of debugnet netdump: who may send a dump, and one `Dump` for each.

In: HERALDs with their senders, the time. Out: a Dump for each sender. The one rule: whatever arrives, there are no more than so many
dumps, and a machine that dies again gets a new one.

A HERALD that repeats is answered again. FreeBSD's client says always the same in it, so that one which died twice is told from one
whose HERALD came twice by the silence between (`Limits.reborn`); ours names each dump.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from guest.netpoll.clients.debugnet.dump import Dump, Stage
from guest.netpoll.clients.debugnet.wire import NETGDB, Message, Status, Type, parse, path_of
from guest.netpoll.clients.dump.sink import Kept, Store
from guest.netpoll.wire import WireError


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    size: int = 1 << 36
    dumps: int = 16  # with data, at a time
    waiting: int = 64  # without: the oldest goes when another comes
    idle: float = 600.0  # netdumpd: CLIENT_TIMEOUT
    reborn: float = 3.0  # so long silent, a FreeBSD client that heralds is a new one
    linger: float = 60.0  # a finished dump answers what is repeated


Key = tuple[str, int, int]
_STATUS = {Kept.NOTHING: Status.NEW, Kept.INCOMPLETE: Status.RESUMED, Kept.COMPLETE: Status.COMPLETE}


class Server:
    """`dumps` by (client's address, its port, the dump's name). `say(line)` gets what an operator wants to know."""

    def __init__(self, store: Store, say: Callable[[str], None], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.dumps: dict[Key, Dump] = {}
        self.counts: Counter[str] = Counter()
        self._finished = 0  # of those no longer in `dumps`
        self._store = store
        self._say = say

    def herald(self, peer: str, port: int, datagram: bytes, now: float) -> Dump | None:
        """The dump that a datagram to the well-known port is about, which has an answer to send; None if it is about none."""
        try:
            message = parse(datagram)
            if message.type != Type.HERALD or message.aux2 == NETGDB:
                raise WireError("no HERALD of a netdump")
            return self._herald((peer, port, message.aux2), message, path_of(message), now)
        except WireError as error:
            self.note(peer, str(error))
            return None

    def note(self, peer: str, what: str) -> None:
        """Count, and say it the first time."""
        if not self.counts[what]:
            self._say(f"{peer}: a datagram {what} (said once, counted from here on)")
        self.counts[what] += 1

    def _herald(self, key: Key, message: Message, path: str | None, now: float) -> Dump | None:
        dump = self.dumps.get(key)
        if dump is not None and not self._reborn(dump, now):
            dump.heralded(message.seqno, Status.COMPLETE if dump.stage is Stage.COMPLETE else Status.RESUMED)
            return dump
        if dump is not None:
            self._drop(key, "the client has started anew")
        if not self._room():
            self.note(key[0], "that found no room: too many dumps at a time")
            return None
        return self._new(key, message, path, now)

    def _new(self, key: Key, message: Message, path: str | None, now: float) -> Dump:
        peer, _, name = key
        kept = self._store.find(peer, name, path)
        dump = Dump(self._store, peer, name, path, message.seqno, self.limits.size, self.note, now)
        dump.heralded(message.seqno, _STATUS[kept])
        self.dumps[key] = dump
        self._say(f"{peer}: {'a dump goes on' if kept is Kept.INCOMPLETE else 'a dump is announced'}")
        return dump

    def _reborn(self, dump: Dump, now: float) -> bool:
        """Ended, or FreeBSD's client and silent for too long: this HERALD begins another dump."""
        if dump.name:
            return dump.stage is Stage.REFUSED
        silent = now - dump.heard > self.limits.reborn
        return dump.stage is Stage.REFUSED or (silent and dump.stage is not Stage.WAITING)

    def _room(self) -> bool:
        """True if another dump may be announced; the oldest of those without data makes room for it."""
        waiting = [key for key, dump in self.dumps.items() if dump.stage is Stage.WAITING]
        if len(waiting) >= self.limits.waiting:
            del self.dumps[waiting[0]]
        return sum(dump.stage is Stage.RECEIVING for dump in self.dumps.values()) < self.limits.dumps

    @property
    def finished(self) -> int:
        """Complete dumps so far."""
        return self._finished + sum(dump.stage is Stage.COMPLETE for dump in self.dumps.values())

    def tick(self, now: float) -> None:
        """Give up on who has been silent for too long. About every second."""
        for key, dump in list(self.dumps.items()):
            patience = self.limits.idle if dump.stage is Stage.RECEIVING else self.limits.linger
            if now - dump.heard > patience:
                self._drop(key, "the client is silent")

    def _drop(self, key: Key, why: str) -> None:
        dump = self.dumps.pop(key)
        self._finished += dump.stage is Stage.COMPLETE
        dump.end(why)

    def close(self, why: str) -> None:
        """Every dump under way stays on the disk, incomplete."""
        for key in list(self.dumps):
            self._drop(key, why)
