"""`overnight demo`: a real batch through a real server and a real model, with the official SDK, in a minute.

Nothing is canned: what is printed is what the embedded model said. It is very small and misreads some invoices;
the demo says so where it happens.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from overnight.errors import UsageError

if TYPE_CHECKING:
    from anthropic import Anthropic
    from anthropic.types.messages import MessageBatchIndividualResponse

APPROVAL_ABOVE = 200_000  # Rupees.
_MODEL = "claude-haiku-4-5"  # The embedded model answers every claude-* name.
_POLL_S = 0.02


class Invoice(NamedTuple):
    """One line of a ledger, and what is really in it."""

    custom_id: str
    text: str
    department: str
    amount: int
    description: str

    def __str__(self) -> str:
        return f"{self.department} | Rs {self.amount} | {self.description}"


INVOICES = (
    Invoice("INV-001", "IT - network cables - Rs 1,24,500", "IT", 124_500, "network cables"),
    Invoice(
        "INV-002",
        "Engineering ordered cloud hosting from Globex for Rs 45,000",
        "Engineering",
        45_000,
        "cloud hosting",
    ),
    Invoice("INV-003", "Marketing - printer paper - Rs 640", "Marketing", 640, "printer paper"),
    Invoice(
        "INV-004",
        "Sales ordered flight tickets from Blue Sky GmbH for Rs 2,85,000",
        "Sales",
        285_000,
        "flight tickets",
    ),
    Invoice("INV-005", "HR - team lunch - Rs 845", "HR", 845, "team lunch"),
)
TICKETS = {
    "T-101": "I was charged twice for my Pro plan this month.",
    "T-102": "The app crashes when I open the dashboard.",
    "T-103": "I forgot my password and cannot log in.",
    "T-104": "I would love a dark mode.",
}
REVIEWS = {
    "R-201": "I love this kettle, it works perfectly.",
    "R-202": "The blender broke after two days. I want my money back.",
    "R-203": "It is okay for the price, nothing special.",
    "R-204": "Great sound, very comfortable headphones. Highly recommended!",
}
_READ_INVOICE = (
    'Extract the invoice line as JSON with the keys "department", "amount" and "description". '
    "Write the amount as a plain number."
)
_ROUTE_TICKET = "Classify the support ticket. Answer with one of: billing, technical, account, feedback, other."
_JUDGE_REVIEW = "Classify the sentiment of the product review. Answer with one word: positive, negative or neutral."


@click.command()
def demo() -> None:
    """See a batch go through: a server on a free port, invoices, tickets and reviews, the official SDK.

    Takes a few seconds, needs no key and no network, and leaves nothing behind. Needs the SDK:
    pip install 'overnight[demo]'.
    """
    try:
        from anthropic import Anthropic  # noqa: PLC0415  Only this command needs it.
    except ImportError as error:
        raise UsageError("the demo needs the official SDK: pip install 'overnight[demo]'") from error
    with tempfile.TemporaryDirectory(prefix="overnight-demo-") as data, _server(data) as url:
        click.echo(f"Server:  {url} (embedded model, data in a temporary directory)")
        client = Anthropic(base_url=url, api_key="any-key-works-on-loopback")
        answers = _collect(client, _submit(client))
    _report(answers)


@contextmanager
def _server(data: str) -> Iterator[str]:
    command = [sys.executable, "-m", "overnight.cli.main", "serve", "--listen", "127.0.0.1:0", "--data", data]
    with subprocess.Popen(  # noqa: S603  Our own interpreter and module.
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = re.search(r"http://\S+", process.stdout.readline())
        if ready is None:
            raise UsageError(f"the server did not start: {process.stderr.read()}")
        try:
            yield ready[0]
        finally:
            process.terminate()
            process.communicate()


def _submit(client: "Anthropic") -> str:
    requests = [
        *(_request(invoice.custom_id, _READ_INVOICE, invoice.text, max_tokens=200) for invoice in INVOICES),
        *(_request(custom_id, _ROUTE_TICKET, text, max_tokens=10) for custom_id, text in TICKETS.items()),
        *(_request(custom_id, _JUDGE_REVIEW, text, max_tokens=10) for custom_id, text in REVIEWS.items()),
    ]
    batch = client.messages.batches.create(requests=requests)
    click.echo(f"Batch:   {batch.id} with {len(requests)} requests")
    return batch.id


def _request(custom_id: str, system: str, text: str, *, max_tokens: int) -> Any:
    return {
        "custom_id": custom_id,
        "params": {
            "model": _MODEL,
            "max_tokens": max_tokens,
            "system": system,
            "messages": [{"role": "user", "content": text}],
        },
    }


def _collect(client: "Anthropic", batch_id: str) -> dict[str, str]:
    shown = ""
    while True:
        batch = client.messages.batches.retrieve(batch_id)
        left = batch.request_counts.processing
        done = len(INVOICES) + len(TICKETS) + len(REVIEWS) - left
        status = f"Status: {batch.processing_status} | Done: {done} | Remaining: {left}"
        if status != shown:
            click.echo(status)
            shown = status
        if batch.processing_status == "ended":
            return {line.custom_id: _text(line) for line in client.messages.batches.results(batch_id)}
        time.sleep(_POLL_S)


def _text(line: "MessageBatchIndividualResponse") -> str:
    if line.result.type == "succeeded":
        return "".join(block.text for block in line.result.message.content if block.type == "text")
    return f"({line.result.type})"


def _report(answers: dict[str, str]) -> None:
    click.echo("\nInvoices")
    for invoice in INVOICES:
        click.echo(f"{invoice.custom_id} -> {invoice_line(answers[invoice.custom_id], invoice)}")
    for title, asked in (("Tickets", TICKETS), ("Reviews", REVIEWS)):
        click.echo(f"\n{title}")
        for custom_id, text in asked.items():
            click.echo(f"{custom_id} -> {answers[custom_id]:<9} | {text}")


def invoice_line(answer: str, invoice: Invoice) -> str:
    """What the model read, the approval it leads to, and what the invoice says where that is something else."""
    try:
        found = json.loads(answer)
        read = invoice._replace(
            department=found["department"], amount=int(found["amount"]), description=found["description"]
        )
    except (ValueError, TypeError, KeyError):
        return f"not valid: {answer}"
    line = str(read)
    if read.amount > APPROVAL_ABOVE:
        line += " | *** APPROVAL REQUIRED ***"
    if read != invoice:
        line += f"   (misread by the small model: the invoice says {invoice})"
    if read.amount <= APPROVAL_ABOVE < invoice.amount:
        line += " and would have needed approval"
    return line
