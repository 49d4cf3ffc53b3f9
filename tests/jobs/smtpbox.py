"""A real SMTP server for the tests of jobs, and the mails that came to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

PASSWORD = "p@ss/w?rd&to=c"  # An unescaped URL would be torn at it.


class Mailbox:
    """Accepts mails for all but `nobody@…`, and keeps them by recipient. `address` is HOST:PORT."""

    address = ""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []

    async def handle_RCPT(  # noqa: N802 Called by aiosmtpd.
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        self.mails.append((envelope.rcpt_tos, message_from_bytes(content, policy=policy.default)))
        return "250 OK"

    @property
    def by_recipient(self) -> dict[str, list[EmailMessage]]:
        """Every mail, under each of its recipients."""
        found: dict[str, list[EmailMessage]] = {}
        for recipients, mail in self.mails:
            for recipient in recipients:
                found.setdefault(recipient, []).append(mail)
        return found


class _Controller(Controller):
    """On a port that the system picks; aiosmtpd itself would knock at port 0."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


def _authenticated(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    is_right = isinstance(data, LoginPassword) and data.password == PASSWORD.encode()
    return AuthResult(success=is_right, handled=False)


@contextmanager
def open_mailbox() -> Iterator[Mailbox]:
    """A mailbox whose server runs for the length of a block."""
    mailbox = Mailbox()
    controller = _Controller(
        mailbox, hostname="127.0.0.1", port=0, authenticator=_authenticated, auth_require_tls=False
    )
    controller.start()
    mailbox.address = f"127.0.0.1:{controller.port}"
    yield mailbox
    controller.stop()
