"""The job of text 000: five invoices, their job file, and what a model makes of them."""

import json
from typing import Any

from nights import Folder, Params, said

from overnight.testing.hosted import Outcome, text

TEXTS = {
    "INV-001": "Amazon Web Services, hosting for October. Total due: Rs 1,24,500.00",
    "INV-002": "Naukri, recruitment portal for a quarter. Total due: Rs 45,000.00",
    "INV-003": "Dell, 5 laptops for new engineers. Total due: Rs 2,85,000.00",
    "INV-004": "Godrej, chairs and a desk. Total due: Rs 78,000.00",
    "INV-005": "Times of India, campaign for Diwali. Total due: Rs 8,50,000.00",
}
READ = {
    "INV-001": ("IT", 124_500, "AWS cloud infrastructure costs"),
    "INV-002": ("HR", 45_000, "Recruitment portal subscription"),
    "INV-003": ("IT", 285_000, "Laptops for new engineers"),
    "INV-004": ("Admin", 78_000, "Office furniture"),
    "INV-005": ("Marketing", 850_000, "Diwali print campaign"),
}
LINES = [
    "INV-001 -> IT | Rs 124500 | AWS cloud infrastructure costs",
    "INV-002 -> HR | Rs 45000 | Recruitment portal subscription",
    "INV-003 -> IT | Rs 285000 | Laptops for new engineers *** APPROVAL REQUIRED ***",
    "INV-004 -> Admin | Rs 78000 | Office furniture",
    "INV-005 -> Marketing | Rs 850000 | Diwali print campaign *** APPROVAL REQUIRED ***",
]
COLUMNS = (
    "number text primary key",
    "text",
    "department",
    "amount integer",
    "description",
    "approval_required boolean",
    "processed_at",
    "error",
)
JOB = """
name = "invoices"
noun = "invoices"
model = "claude-haiku-4-5"
max_tokens = 300

[source]
db = "sqlite:///rows.db"
sql = "select number, text from invoices where processed_at is null and error is null order by number"
key = "number"

[prompt]
system = "You classify invoices for the finance team."
user = "{{ number }}: {{ text }}"

[output.schema]
department = { enum = ["IT", "HR", "Admin", "Marketing", "Finance"] }
amount = "integer"
description = "string"

[derive]
approval_required = "amount > 200000"

[sink]
db = "sqlite:///rows.db"
sql = '''update invoices set department = :department, amount = :amount, description = :description,
         approval_required = :approval_required, processed_at = :now
         where number = :key and processed_at is null'''
on_error = "update invoices set error = :error where number = :key and processed_at is null"

[report]
heading = "=== INVOICE CLASSIFICATION RESULTS ==="
line = '''{{ key }} -> {{ department }} | Rs {{ amount }} | {{ description }}
{%- if approval_required %} *** APPROVAL REQUIRED ***{% endif %}'''

[batch]
poll = 0.01

[lines]
batch = "Batch ID: {{ id }}"
first_status = "Status: {{ status }}"
"""


def fill(folder: Folder, texts: dict[str, str] | None = None) -> None:
    """A table of unprocessed invoices: the five, or `texts`."""
    folder.table("invoices", COLUMNS, [])
    add(folder, TEXTS if texts is None else texts)


def add(folder: Folder, texts: dict[str, str]) -> None:
    """More invoices for the table."""
    folder.many("insert into invoices (number, text) values (?, ?)", list(texts.items()))


def as_json(department: str, amount: Any, description: str) -> Outcome:
    """An answer."""
    return text(json.dumps({"department": department, "amount": amount, "description": description}))


def number_of(params: Params) -> str:
    """Which invoice a request is about; one that is asked again has more messages."""
    return said(params, first=True).partition(":")[0]


def read(params: Params) -> Outcome:
    """What a model makes of an invoice; of one that is not among the five, something small."""
    return as_json(*READ.get(number_of(params), ("Finance", 1_000, "Bank charges")))
