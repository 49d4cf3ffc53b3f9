"""`overnight init`."""

import re
from pathlib import Path

import click

from overnight.cli.joboptions import DONE, ends_with_code
from overnight.errors import UsageError

_JOB = '''\
# A nightly job. Try it:   overnight estimate {name}.toml
#                          overnight run {name}.toml --limit 3
# Every key, with its default, is in docs/reference/job-file.md.
name       = "{name}"
noun       = "tickets"
model      = "claude-haiku-4-5"
max_tokens = 50

[source]                                   # Any SQLAlchemy URL; relative SQLite files lie beside this file.
db  = "env:DATABASE_URL"
sql = "select id, subject, body from tickets where category is null"
key = "id"
# file = "tickets.csv"                     # … or a CSV, Parquet or JSONL file,
# glob = "inbox/*.pdf"                     # … or one row for each file of a pattern.

[prompt]                                   # Jinja2 over the columns; a column that is not there is an error.
system = """Classify the support ticket into exactly one category.
Categories: billing, technical, account, feedback, other
Return only the category name, lowercase."""
user   = "Subject: {{{{ subject }}}}\\n{{{{ body[:500] }}}}"

[output]
choices = ["billing", "technical", "account", "feedback", "other"]

[sink]                                     # Guarded by its `where`: running it again changes nothing.
db  = "env:DATABASE_URL"
sql = "update tickets set category = :value where id = :key and category is null"
# file = "answers.csv"                     # … or a file, written whole.

[limits]
budget_usd = 2.00                          # What does not fit is held for the next night.
# deadline = "06:00"                       # What is not done by then is cancelled,
# fallback = "realtime"                    # … and asked in real time.

[endpoint]                                 # Without it: ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY, as with the SDK.
use = "local"                              # http://127.0.0.1:8642, which is `overnight serve`.

# [[notify]]                               # pip install 'overnight[notify]'; one block for each team.
# urls = ["env:TICKETS_MAIL_URL"]          # mailto://user:password@smtp.example.org?to=support@example.org
# when = "problems"
'''
_CRON = """\
# crontab -e
0 23 * * *  cd {home} && overnight submit  {name}.toml
0  6 * * *  cd {home} && overnight collect {name}.toml
"""
_TIMER = """\
# /etc/systemd/system/overnight-{name}.service
[Unit]
Description=overnight job {name}
[Service]
Type=oneshot
WorkingDirectory={home}
ExecStart=overnight run {name}.toml
Restart=on-failure
RestartPreventExitStatus=2 3 4
RestartSec=5min

# /etc/systemd/system/overnight-{name}.timer
[Timer]
OnCalendar=23:00
Persistent=true
[Install]
WantedBy=timers.target
"""


@click.command(
    epilog="""\b
Examples:
  overnight init                 writes job.toml
  overnight init tickets         writes tickets.toml, and prints a cron line and a systemd timer for it
"""
)
@click.argument("name", default="job")
@ends_with_code
def init(name: str) -> int:
    """Write a job file with comments, and print how cron and systemd run it. Overwrites nothing."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) is None:
        raise UsageError(f"{name!r} is no name for a job: letters, digits, - _ and .")
    path = Path(f"{name}.toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_JOB.format(name=name))
    except FileExistsError as error:
        raise UsageError(f"{path} is there already") from error
    home = Path.cwd()
    click.echo(f"{path} is written; edit it, then: overnight estimate {path}\n")
    click.echo(_CRON.format(name=name, home=home))
    click.echo(_TIMER.format(name=name, home=home))
    return DONE
