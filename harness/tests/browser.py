"""A page in headless Chromium, driven as a person would: keys, clicks, pictures. For tests of the HTML report.

In: images.Browser and the folder to show it. Out: a `Page`. Rule: everything waits for an answer or a condition with a deadline;
what the page complains about (errors, refused requests) is collected and can be asked for.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from images.browser import Browser
from images.process import guarded

DEADLINE = 20.0  # seconds for one answer; software drawing on a busy machine
KEYS = {"Enter": ("\r", 13), "Tab": ("", 9), "Escape": ("", 27), "/": ("/", 191), " ": (" ", 32)}


class Page:
    """One page. The Chrome DevTools Protocol over a pipe: JSON messages, a zero byte after each."""

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of = to, of
        self._buffer = b""
        self._number = self._loads = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result. AssertionError when the browser refuses it."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._take(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._of], [], [], DEADLINE)[0], f"the browser said nothing for {DEADLINE:g} s"
            data = os.read(self._of, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _take(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Page.loadEventFired":
                self._loads += 1
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(event["params"]["exceptionDetails"]))
            case "Log.entryAdded" if event["params"]["entry"]["level"] == "error":
                self.complaints.append(event["params"]["entry"]["text"])
            case "Network.loadingFailed":
                self.complaints.append(f"a request failed: {event['params']['errorText']}")

    def go(self, url: str) -> float:
        """Open a page and wait until it is loaded; returns the seconds that took."""
        began, loads = time.monotonic(), self._loads
        self.call("Page.navigate", url=url)
        while self._loads == loads:
            self._take(self._read())
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))")  # drawn once
        return time.monotonic() - began

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{script}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + DEADLINE
        while not self._is(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.02)

    def _is(self, script: str) -> bool:
        """Whether it is true; of a page that is being left nothing is."""
        try:
            return bool(self.evaluate(script))
        except AssertionError as error:
            if "navigated" not in str(error):
                raise
            return False

    def press(self, key: str) -> None:
        """A key of the keyboard: one character, or a name of KEYS."""
        text, code = KEYS.get(key, (key, ord(key.upper()[0])))
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        for character in text:
            self.press(character)

    def click(self, selector: str) -> None:
        """The left button on the middle of an element, brought into view."""
        where = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getClientRects()[0];"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1)

    def window(self, width: int, height: int, phone: bool = False) -> None:
        """Its size in CSS pixels; as a phone it has a touch screen's viewport."""
        scale = 2 if phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path: Path) -> None:
        """A PNG of what the window shows."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def opened(browser: Browser, folder: Path) -> Iterator[Page]:
    """A browser that sees `folder` as file:///shown/ and nothing else; it ends with the context."""
    argv = guarded([*browser.argv(folder), "--remote-debugging-pipe", "about:blank"])
    words = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", *argv]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Page(process.stdin.fileno(), process.stdout.fileno())
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()
