"""What is waited for, in words: the same on the live line, in a failure and on the page.

In: the keys of a wait, from a plan or from an event. Out: words that go after `waits for`. Rule: a kind that is not known here is told by its
own name.
"""

from __future__ import annotations

WORDS = {
    "carrier": "the carrier of {of} to be {state}",
    "event": "QEMU's event {of}",
    "console": "the console to match `{of}`",
    "panic": "`{of}` on the console",
    "text": "the last line of the panic at {of}",
    "received": "{of} to have received {count}",
    "sent": "{of} to be sent",
    "dropped": "the drop routine of {of} to be given {count}",
    "unplugged": "{of} to be unplugged",
    "queue": "the TX queue of {of} to be {state}",
    "dump": "the dump to be {of}",
}


def wait_words(what: str, of: str, state: object = None, count: object = None) -> str:
    """A sentence's end."""
    words = WORDS.get(what)
    return words.format(of=of, state=state, count=count) if words else f"{what} {of}"
