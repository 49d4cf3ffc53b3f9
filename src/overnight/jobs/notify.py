"""Who is told that a run has ended, and how: messages, made here and sent by Apprise (`overnight[notify]`)."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from overnight import limits
from overnight.errors import JobError, ServerTrouble
from overnight.jobs.cost import money
from overnight.jobs.jobfile import Notify, Report
from overnight.jobs.report import Summary, report
from overnight.jobs.row import FAILED, Answer
from overnight.jobs.secret import resolved
from overnight.jobs.tell import one_line, printable
from overnight.jobs.templates import Expression, RowLine, Template

Answers = Callable[[], Iterable[Answer]]

_AMOUNTS: Final = ("batch_usd", "realtime_usd", "saved_usd", "month_usd", "year_usd")
_KNOWN: Final = (*Summary._fields, "saved_usd", "succeeded", "failed")
_CUT: Final = "\n… cut here, the message is too long\n"


class Message(NamedTuple):
    """What one block of [[notify]] says. `urls` are as the job file has them, secrets unresolved."""

    block: int  # From 0, as in the job file.
    urls: tuple[str, ...]
    title: str
    body: str


def check(blocks: Sequence[Notify], settings: Report, environment: Mapping[str, str]) -> None:
    """JobError for what could not be reported or sent: a wrong template, an address, a variable that is not set.

    Meant for the evening, so that the morning does not find it out.
    """
    RowLine(settings.line, "[report] line")
    for index, block in enumerate(blocks):
        _Block(index, block)
        _services(index, block.urls, environment)


def messages(blocks: Sequence[Notify], summary: Summary, answers: Answers, settings: Report) -> list[Message]:
    """What to send when a run has ended. `answers`, in the order of the source, is read up to thrice a block.

    A block with `rows` speaks of the rows for which that is true, and of failed rows that lack the fields to tell;
    where it is true for none, there is no message. JobError for a template that is wrong.
    """
    made = []
    for index, block in enumerate(blocks):
        worded = _Block(index, block)
        if (block.when == "always" or summary.failed) and worded.concerns(answers):
            made.append(worded.message(summary, answers, settings))
    return made


def send(message: Message, environment: Mapping[str, str]) -> None:
    """Delivers a message, as plain text, to every address of it; on return all of them were accepted.

    An address is an Apprise URL: `env:NAME` as a whole, or with `{env:NAME}` in it for a secret, which is escaped.
    JobError, before anything is sent, where one is wrong. ServerTrouble names what did not accept the message, after
    all were tried: a repeat sends to those again that did.
    """
    troubles = []
    for service in _services(message.block, message.urls, environment):
        with _silenced() as reasons:
            is_sent = service.apprise.notify(body=message.body, title=message.title, body_format="text")
        if not is_sent:
            why = "; ".join(dict.fromkeys(service.without_secrets(reason) for reason in reasons))
            troubles.append(f"{service.shown} did not take the message: {why or 'no reason given'}")
    if troubles:
        raise ServerTrouble(f"{_where(message.block)}: {'. '.join(troubles)}")


class _Block:
    """The templates of one block, compiled."""

    def __init__(self, index: int, block: Notify) -> None:
        self._index, self._urls, where = index, tuple(block.urls), _where(index)
        self._rows = Expression(block.rows, f"{where} rows") if block.rows else None
        self._title = Template(block.title, f"{where} title", of="name")
        self._body = Template(block.body, f"{where} body", of="name")
        self._title.check(_KNOWN)
        self._body.check((*_KNOWN, "answers", "report"))
        self._has_title, self._has_body = bool(block.title), bool(block.body)

    def concerns(self, answers: Answers) -> bool:
        return self._rows is None or any(self._is_wanted(self._rows, answer) for answer in answers())

    def message(self, summary: Summary, answers: Answers, settings: Report) -> Message:
        names = _names(summary)
        title = self._title.render(names) if self._has_title else _title(summary)
        return Message(self._index, self._urls, one_line(title), self._text(names, summary, answers, settings))

    def _text(self, names: dict[str, Any], summary: Summary, answers: Answers, settings: Report) -> str:
        if not self._has_body:
            return _reported(settings, summary, self._chosen(answers))
        if "report" in self._body.names:
            names["report"] = _reported(settings, summary, self._chosen(answers))
        names["answers"] = (answer.names for answer in self._chosen(answers))
        text = printable(self._body.render(names))
        longest = limits.JOB_MAIL_CHARACTERS_MAX
        return text if len(text) <= longest else text[:longest] + _CUT

    def _chosen(self, answers: Answers) -> Iterator[Answer]:
        rows = self._rows
        return (answer for answer in answers() if rows is None or self._is_wanted(rows, answer) is not False)

    @staticmethod
    def _is_wanted(rows: Expression, answer: Answer) -> bool | None:
        """None: the row failed, and what it lacks decides."""
        if answer.state in FAILED and not rows.names <= answer.names.keys():
            return None
        return bool(rows.value(answer.names))


def _where(index: int) -> str:
    return f"[[notify]] {index + 1}"


def _title(summary: Summary) -> str:
    failed = f", {summary.failed:,} failed" if summary.failed else ""
    return f"{summary.job}: {summary.succeeded:,} of {summary.rows:,} {summary.noun}{failed}"


def _reported(settings: Report, summary: Summary, answers: Iterable[Answer]) -> str:
    return "\n".join(report(settings, summary, answers, characters_max=limits.JOB_MAIL_CHARACTERS_MAX)) + "\n"


def _names(summary: Summary) -> dict[str, Any]:
    """What a template of a message may name; amounts are texts."""
    amounts = {name: getattr(summary, name) for name in _AMOUNTS}
    return {
        **summary._asdict(),
        **{name: "unknown" if usd is None else money(usd) for name, usd in amounts.items()},
        "counts": {**dict.fromkeys(("succeeded", *FAILED), 0), **summary.counts},
        "succeeded": summary.succeeded,
        "failed": summary.failed,
    }


class _Service(NamedTuple):
    apprise: Any
    shown: str  # Scheme and host; where Apprise knows the host to be a secret, masked.
    secrets: re.Pattern[str]

    def without_secrets(self, reason: str) -> str:
        return one_line(self.secrets.sub("***", reason))


def _services(block: int, urls: Sequence[str], environment: Mapping[str, str]) -> list[_Service]:
    try:
        library = import_module("apprise")
    except ImportError as error:
        raise JobError("[[notify]] needs Apprise: pip install 'overnight[notify]'") from error
    services = []
    for number, setting in enumerate(urls):
        url = _url(setting, environment)
        with _silenced():
            sender = library.Apprise(asset=library.AppriseAsset(app_id="overnight", app_desc="overnight"))
            service = library.Apprise.instantiate(url, asset=sender.asset)
        if service is None:
            raise JobError(
                f"{_where(block)}: urls.{number} is not an address that Apprise knows; "
                "https://github.com/caronc/apprise/wiki has the form of each"
            )
        sender.add(service)
        services.append(_Service(sender, *_public(service.url(privacy=True), url)))
    return services


def _url(setting: str, environment: Mapping[str, str]) -> str:
    def escaped(found: re.Match[str]) -> str:
        return quote(resolved(found[1], environment), safe="")

    return re.sub(r"\{(env:\w+)\}", escaped, resolved(setting, environment))


def _public(public: str, url: str) -> tuple[str, re.Pattern[str]]:
    """What of `url` may be shown, and all else in it that may not; `public` is Apprise's masked form of it."""
    parts = urlsplit(public)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if not parts.scheme.startswith("mailto"):  # There the path has recipients; elsewhere it may be a token.
        public = shown
    words = {
        form
        for word in _words(re.sub(r"(?<=[?&])[^=&]*=", "", url))  # Without the names of parameters.
        for form in (word, unquote(word), quote(unquote(word), safe=""))
    }
    secrets = sorted(words.difference(_words(unquote(public)), {""}), key=len, reverse=True)
    pattern = "|".join(
        re.escape(secret) if len(secret) >= 8 else rf"(?<!\w){re.escape(secret)}(?!\w)"  # "no" is in "not".
        for secret in secrets
    )
    return shown, re.compile(pattern or r"(?!)")


def _words(url: str) -> list[str]:
    return re.split(r"[/:@?&=#,;]+", url)


class _Reasons(logging.Handler):
    """Keeps what says why: warnings, and what a socket said, which plugins log for debugging only."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING or text.startswith("Socket Exception"):
            self.texts.append(text)


@contextmanager
def _silenced() -> Iterator[list[str]]:
    """What Apprise says meanwhile, kept from every log: it may hold secrets."""
    logger, reasons = logging.getLogger("apprise"), _Reasons()
    level, propagate, handlers = logger.level, logger.propagate, logger.handlers
    logger.setLevel(logging.DEBUG)
    logger.propagate, logger.handlers = False, [reasons]
    try:
        yield reasons.texts
    finally:
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers
