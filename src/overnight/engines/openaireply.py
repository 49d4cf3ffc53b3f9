"""What the answers of a chat/completions server mean: a Message, or why there is none. Pure but for the ids.

Error bodies are OpenAI's (https://platform.openai.com/docs/guides/error-codes); their types are not the API's, so
what a caller reads is the type of the status. Statuses mean what they mean everywhere: see `engines.replies`.
"""

from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.engines import answer, completion, replies
from overnight.engines.chat import Plan
from overnight.engines.completion import Chunk, Completion, Reading
from overnight.engines.transport import Reply
from overnight.ports.clock import Clock
from overnight.ports.entropy import Entropy
from overnight.wire import problem

_TOO_LONG: Final = "exceed_context_size_error"  # llama.cpp's, with the counts.
_BLIND: Final = "image input is not supported"  # llama.cpp's, as a 500.


class Reader:
    """Reads the answers of one server. `secret` is blotted out of everything that it says."""

    def __init__(self, *, clock: Clock, entropy: Entropy, secret: str | None) -> None:
        self._clock = clock
        self._entropy = entropy
        self._secret = secret

    def whole(self, reply: Reply, plan: Plan, *, tier: Literal["batch", "standard"]) -> Outcome:
        """The outcome of a call that was not streamed."""
        if reply.status != 200:
            return self.refused(reply)
        chunk = read_chunk(reply.body)
        if isinstance(chunk, Broken):
            return chunk
        reading = Reading(plan)
        reading.take(chunk)
        end = reading.outcome()
        if isinstance(end, Completion):
            own = replace(end, text=end.text.removeprefix(plan.echo))
            return Answered(answer.message(own, model=plan.model, tier=tier, entropy=self._entropy))
        return self.blotted(end)

    def refused(self, reply: Reply) -> Refused | Busy | Broken:
        """What a status other than 200 means."""
        outcome = replies.outcome_of(reply, clock=self._clock, secret=self._secret)
        assert not isinstance(outcome, Answered), "only a 200 is answered"
        if isinstance(outcome, Broken) and _BLIND in outcome.reason:
            said = "messages: this model does not read images"
            return Refused(status=400, type="invalid_request_error", message=said)
        if not isinstance(outcome, Refused):
            return outcome
        chunk = read_chunk(reply.body)
        if isinstance(chunk, Chunk) and chunk.error and chunk.error.type == _TOO_LONG:
            return completion.outcome_of(chunk.error)
        return replace(outcome, type=problem.type_of_status(outcome.status))

    def blotted(self, outcome: Refused | Busy | Broken) -> Refused | Busy | Broken:
        """`outcome` without the secret."""
        if isinstance(outcome, Refused):
            return replace(outcome, message=replies.blotted(outcome.message, self._secret))
        return replace(outcome, reason=replies.blotted(outcome.reason, self._secret))


def read_chunk(data: bytes) -> Chunk | Broken:
    """A piece of a stream, or a whole answer."""
    try:
        return completion.read_chunk(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Broken(reason=f"the engine's answer is not one of chat/completions: {error}")
