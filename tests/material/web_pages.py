"""Pages as a parser and as a browser see them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

VOID = {"meta", "input", "br", "img", "link"}
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip


class Page(HTMLParser):
    """What a page holds, and whether its elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.texts: dict[int, str] = {}
        self.faults: list[str] = []
        self._open: list[tuple[str, int]] = []
        self.feed(text)
        self.close()
        self.faults += [f"{tag} is left open" for tag, _ in self._open]
        self.ids = [own["id"] for _, own, _ in self.elements if "id" in own]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if len({name for name, _ in attrs}) != len(attrs):
            self.faults.append(f"{tag} has an attribute twice")
        self.elements.append((tag, dict(attrs), tuple(name for name, _ in self._open)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self._open or self._open.pop()[0] != tag):
            self.faults.append(f"</{tag}> closes another element")

    def handle_data(self, data: str) -> None:
        for _, place in self._open:
            self.texts[place] = self.texts.get(place, "") + data

    def all(self, tag: str, **attributes: str) -> list[int]:
        """Places of the elements with a tag and attributes."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            place
            for place, (name, own, _) in enumerate(self.elements)
            if name == tag and all(own.get(key) == value for key, value in wanted.items())
        ]

    def own(self, identity: str) -> dict[str, str | None]:
        """The attributes of the element with an id."""
        return next(own for _, own, _ in self.elements if own.get("id") == identity)

    def text(self, place: int) -> str:
        return " ".join(self.texts.get(place, "").split())

    def first(self, tag: str, **attributes: str) -> str:
        return self.text(self.all(tag, **attributes)[0])

    def section(self, name: str) -> str:
        return self.first("section", id=name)

    def policy(self) -> str:
        return next(own["content"] or "" for _, own, _ in self.elements if own.get("http-equiv"))

    def data(self) -> Any:
        """What the script gets."""
        return json.loads(self.texts[self.all("script", type="application/json")[0]])


class Browser:
    """Chromium, spoken to in its DevTools protocol through a pipe: what is done in it is done by a real pointer."""

    def __init__(self, profile: Path, *options: str) -> None:
        program = (
            shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        )
        assert program, "no Chromium here"
        reading, self._to = os.pipe()
        come, writing = os.pipe()

        # Chromium has its ends as 3 and 4.
        start = f'exec "$0" "$@" 3</dev/fd/{reading} 4>/dev/fd/{writing}'
        self._process = subprocess.Popen(
            ["sh", "-c", start, program, *QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}",
             *options],
            pass_fds=(reading, writing), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(reading)
        os.close(writing)
        self._from = os.fdopen(come, "rb")
        self._session: dict[str, str] = {}
        self._number = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        received = b""
        while True:
            letter = self._from.read(1)
            assert letter, "Chromium has ended"
            if letter != b"\0":
                received += letter
                continue
            answer = json.loads(received)
            if answer.get("id") == self._number:
                assert "result" in answer, answer
                return answer["result"]
            received = b""

    def value(self, script: str) -> Any:
        """What a script comes to, once it has happened."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return done["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until a script is true; as long as it takes."""
        look = f"const at = setInterval(() => {{ if ({script}) {{ clearInterval(at); done(); }} }}, 20)"
        self.value(f"new Promise(done => {{ {look} }})")

    def open(self, url: str) -> None:
        """A page, when all of it is there."""
        self.call("Page.navigate", url=url)
        self.value(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )

    def click(self, element: str) -> None:
        """The middle of what a script gives."""
        x, y = self._middle(element)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drop(self, element: str, *files: Path) -> None:
        """Files on the middle of what a script gives, dragged there."""
        x, y = self._middle(element)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def _middle(self, element: str) -> tuple[float, float]:
        x, y = self.value(f"""(() => {{
            const one = {element};
            one.scrollIntoView({{ block: "center" }});
            const box = one.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        return x, y

    def press(self, key: str) -> None:
        """A key."""
        does = {"text": "\r"} if key == "Enter" else {}  # a form is sent by what is typed
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **does)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def close(self) -> None:
        """End it."""
        self._session = {}
        self.call("Browser.close")
        self._process.wait(timeout=30)
        self._from.close()
        os.close(self._to)
