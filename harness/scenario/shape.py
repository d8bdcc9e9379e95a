"""The shapes that the models cannot name well: exactly one key in a step, a wait or an expectation.

In: the plain data of one combination. Out: messages. Rule: says which keys were found and which could stand there; everything
below a wrong shape is left to the next run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.plan.nics import MODELS
from harness.scenario.document import Path
from harness.scenario.errors import suggest
from harness.scenario.include import INCLUDE
from harness.scenario.messages import Message
from harness.scenario.model import WAITS, Expect, Step


def shape_messages(data: dict[str, Any]) -> Iterator[Message]:
    """What is wrong with the shape of `steps` and `expect`."""
    if "params" in data:
        yield Message(("params",), "key 'params' is filled in by the loader", "use `matrix`", on_key=True)
    yield from _models(data)
    yield from _one_key(data, "steps", [*Step.model_fields, INCLUDE], "a step")
    yield from _one_key(data, "expect", list(Expect.model_fields), "an expectation")
    steps = data.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else []):
        if isinstance(step, dict) and isinstance(wait := step.get("wait"), dict):
            yield from _wait(("steps", index, "wait"), wait)


def _models(data: dict[str, Any]) -> Iterator[Message]:
    """Said here, too, so that a misspelt model is told together with whatever else is wrong."""
    guest = data.get("guest")
    nics = guest.get("nics") if isinstance(guest, dict) else None
    for name, nic in nics.items() if isinstance(nics, dict) else ():
        model = nic.get("model") if isinstance(nic, dict) else None
        if isinstance(model, str) and model not in MODELS:
            yield unknown_model(name, model)


def unknown_model(nic: str, model: str) -> Message:
    """A NIC of a model that there is not."""
    return Message(("guest", "nics", nic, "model"), f"unknown NIC model {model!r}", suggest(model, MODELS, "models"))


def _one_key(data: dict[str, Any], section: str, known: list[str], noun: str) -> Iterator[Message]:
    items = data.get(section)
    for index, item in enumerate(items if isinstance(items, list) else []):
        if not isinstance(item, dict):
            yield Message((section, index), f"{noun} is a mapping with one key", f"one of {', '.join(known)}")
            continue
        for key in item:
            if key not in known:
                what = f"{key!r} is no {noun.split()[-1]}"
                yield Message((section, index, key), what, suggest(key, known, "there are"), on_key=True)
        if len(item) != 1:
            what = f"{noun} has exactly one key, this one has {len(item)}: {', '.join(item)}"
            yield Message((section, index), what, "begin each with its own `- `")


def _wait(path: Path, wait: dict[str, Any]) -> Iterator[Message]:
    kinds = [key for key in wait if key in WAITS]
    if len(kinds) > 1:
        yield Message(path, f"a wait is for one thing, this one for {' and '.join(kinds)}", "make two steps of it")
    if not kinds:
        yield Message(path, "nothing to wait for", f"give one of {', '.join(WAITS)}")
