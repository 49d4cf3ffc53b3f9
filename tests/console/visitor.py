"""Somebody at the console without a browser: keeps its cookie, follows links, and fills forms."""

from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from overnight.testing.wireclient import Answer, WireClient

_VOID = frozenset({"meta", "link", "img", "input", "br", "hr", "rect", "option"})


class Page(HTMLParser):
    """What is on a page: elements in document order, with the text inside of each."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(convert_charrefs=True)
        self.answer, self.status = answer, answer.status
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.source = answer.body.decode()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        element = (tag, {name: value or "" for name, value in attrs}, list[str]())
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for _, _, texts in self._open:
            texts.append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """The text of each element of that kind whose attributes are these."""
        return ["".join(texts) for _, texts in self._found(tag, attributes)]

    def attributes(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """The attributes of each element of that kind."""
        return [found for found, _ in self._found(tag, attributes)]

    def link(self, text: str) -> str:
        """Where the link with this text leads."""
        (found,) = [
            element[1]["href"] for element in self.elements if element[0] == "a" and "".join(element[2]) == text
        ]
        return found

    def has_link(self, text: str) -> bool:
        """Whether there is a link with this text."""
        return text in self.texts("a")

    def _found(self, tag: str, attributes: Mapping[str, str]) -> list[tuple[dict[str, str], list[str]]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            (found, texts) for name, found, texts in self.elements if name == tag and wanted.items() <= found.items()
        ]


class Visitor:
    """One browser. `client` stays the caller's."""

    def __init__(self, client: WireClient) -> None:
        self.client, self.cookie = client, ""

    def get(self, path: str) -> Page:
        """The page at a path."""
        return Page(self.fetch("GET", path))

    def fetch(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One exchange, as it came."""
        sent = {"content-type": "application/x-www-form-urlencoded"} if body is not None else {}
        if self.cookie:
            sent["cookie"] = self.cookie
        answer = self.client.call(
            method, path, body, headers={**sent, **headers}, without=("x-api-key", "anthropic-version")
        )
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def submit(self, page: Page, fields: Sequence[tuple[str, str]] = (), *, action: str) -> Answer:
        """Send the form of a page that posts to `action`: its hidden fields and these."""
        assert page.attributes("form", method="post", action=action), "there is such a form"
        hidden = [(found["name"], found["value"]) for found in page.attributes("input", type="hidden")]
        body = urlencode([*hidden, *fields]).encode()
        return self.fetch("POST", action, body)

    def log_in(self, key: str) -> None:
        """Begin a session with a key."""
        page = self.get("/console/login")
        token = page.attributes("input", name="token")[0]["value"]
        answer = self.fetch("POST", "/console/login", urlencode({"token": token, "key": key}).encode())
        assert answer.status == 303, answer
