"""A seeded defect, and the way to break a function where it lies for as long as a case runs.

In: the dotted name of a function or value of the project, and what becomes of it. Out: a context in which it is broken. Rule: the broken one
may call the sound one, and whatever happens it is put back.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Break = Callable[[Any], Any]  # what was there -> what is there instead


@dataclass(frozen=True)
class Defect:
    """`name`: what is wrong, in words. `where`: what is broken. `case` and `check`: what must notice."""

    name: str
    where: str
    broken: Break
    case: str
    check: str
    also: tuple[str, ...] = ()  # where else the same name was imported to
    moderation: float = 0.0  # seconds by which the guest's NICs put their interrupts off, where it takes a full ring


@contextmanager
def seeded(defect: Defect) -> Iterator[None]:
    """The defect is in the code inside. Raises AttributeError for a `where` that is not there: the code has moved on."""
    put_back: list[tuple[Any, str, Any]] = []
    try:
        for where in (defect.where, *defect.also):
            owner, name = _owner(where)
            before = vars(owner)[name] if name in vars(owner) else getattr(owner, name)
            put_back.append((owner, name, before))
            setattr(owner, name, defect.broken(before))
        yield
    finally:
        for owner, name, before in reversed(put_back):
            setattr(owner, name, before)


def _owner(where: str) -> tuple[Any, str]:
    """`guest.netpoll.send.MAX_RETRIES` -> the module guest.netpoll.send; a class of a module may be the owner, too."""
    path, _, name = where.rpartition(".")
    try:
        return importlib.import_module(path), name
    except ModuleNotFoundError:
        module, _, owner = path.rpartition(".")
        return getattr(importlib.import_module(module), owner), name


def each(nth: int) -> Callable[[], bool]:
    """True at each nth call."""
    count = 0

    def due() -> bool:
        nonlocal count
        count += 1
        return count % nth == 0

    return due
