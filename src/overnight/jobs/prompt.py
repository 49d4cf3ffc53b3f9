"""From a row to the `params` of its request: exactly what the job says, and nothing that it does not.

https://platform.claude.com/docs/en/api/messages/create
"""

from pathlib import Path
from typing import Any

import msgspec

from overnight.errors import JobError
from overnight.jobs.customid import custom_id
from overnight.jobs.documents import NotReadable, block
from overnight.jobs.jobfile import JobFile
from overnight.jobs.row import Row
from overnight.jobs.schema import Json, Shape
from overnight.jobs.templates import Template

encode = msgspec.json.Encoder().encode  # Compact and not escaped: the bytes that are counted are the bytes sent.
_ASK_AGAIN = "That answer cannot be used: {error}. Answer again, with nothing but the answer."


class Rendered(msgspec.Struct, frozen=True):
    """A request: its id, its params, and why it cannot be sent, if so."""

    custom_id: str
    params: bytes
    error: str = ""


class Renderer:
    """Makes requests of rows. JobError where a template or a setting cannot work for any row."""

    def __init__(self, job: JobFile, shape: Shape | None, *, home: Path) -> None:
        self._job, self._home, self._shape = job, home, shape
        self._id = Template(job.id, where="id") if job.id else None
        prompt = job.prompt
        self._user, self._system, self._document = (
            Template(text, where=f"[prompt] {name}") if text else None
            for name, text in (("user", prompt.user), ("system", prompt.system), ("document", prompt.document))
        )
        if not job.source.requests:
            _check_asks(job)
        if job.params.get("stream"):
            raise JobError("params: stream is not possible in a batch; leave it out")

    def __call__(self, row: Row) -> Rendered:
        """The request of `row`. JobError if a template names a column that there is not."""
        if row.request is not None:
            return self._given(row.request)
        names = {"key": row.key, **row.columns}
        found = custom_id(self._id.render(names) if self._id else str(row.key))
        try:
            return Rendered(found, encode(self._params(names)))
        except NotReadable as error:
            return Rendered(found, b"{}", str(error))

    def _given(self, request: Json) -> Rendered:
        params = {**self._job.params, **request["params"]}
        if self._job.model:
            params.setdefault("model", self._job.model)
        found = custom_id(str(request["custom_id"]))
        if params.get("stream"):
            raise JobError(f"row {request['custom_id']}: stream is not possible in a batch; leave it out")
        return Rendered(found, encode(params))

    def _params(self, names: dict[str, Any]) -> Json:
        job = self._job
        params: Json = {"model": job.model, "max_tokens": job.max_tokens}
        if self._system:
            params["system"] = self._marked(self._system.render(names))
        params["messages"] = [{"role": "user", "content": self._content(names)}]
        if self._shape is not None and job.output.enforce:
            params["output_config"] = {"format": {"type": "json_schema", "schema": self._shape.schema}}
        return {**params, **job.params}

    def _marked(self, text: str) -> str | list[Json]:
        ttl = self._job.prompt.cache
        if not ttl:
            return text
        marker = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}
        return [{"type": "text", "text": text, "cache_control": marker}]

    def _content(self, names: dict[str, Any]) -> str | list[Json]:
        text = self._user.render(names) if self._user else ""
        if self._document is None:
            return text
        shown = [block(self._home / self._job.prompt.folder, self._document.render(names))]
        return [*shown, {"type": "text", "text": text}] if text else shown


def _check_asks(job: JobFile) -> None:
    if not job.model:
        raise JobError('model: a job names its model, such as model = "claude-haiku-4-5"')
    if not job.prompt.user and not job.prompt.document:
        raise JobError("[prompt] user: a job asks something of each row")


def asked_again(params: bytes, *, more_room: bool, explained: str) -> bytes:
    """`params` for another attempt: with twice the room, or with the last answer and what was wrong about it.

    `explained` is a JSON pair of that answer and the complaint, as the ledger keeps it.
    """
    if not more_room and not explained:
        return params
    changed: Json = msgspec.json.decode(params)
    if more_room:
        changed["max_tokens"] = 2 * int(changed["max_tokens"])
    if explained:
        answer, error = msgspec.json.decode(explained, type=tuple[str, str])
        said = [{"role": "assistant", "content": answer}] if answer.strip() else []
        changed["messages"] = [
            *changed["messages"],
            *said,
            {"role": "user", "content": _ASK_AGAIN.format(error=error)},
        ]
    return encode(changed)
