"""What a program does with batches, through whatever official SDK this interpreter has: `scenario.py URL KEY`.

Only `base_url` and `api_key` are ours. Prints one JSON object of what it saw; tests/sdk/test_official_sdks.py says
what that must be. `typescript/scenario.mjs` does the same.
"""

import json
import sys

import anthropic
from anthropic import Anthropic


def main() -> None:
    url, key = sys.argv[1:]
    client = Anthropic(base_url=url, api_key=key, max_retries=0)
    messages, batches = client.messages, batches_of(client)
    stranger = batches_of(Anthropic(base_url=url, api_key="wrong", max_retries=0))
    made = [batches.create(requests=[request(f"row-{number}", f"text {number}")]).id for number in range(6)]
    created = batches.create(
        requests=[request("a", "one"), request("b", "two"), request("bad", "three", max_tokens=0)]
    )
    held = batches.create(requests=[request("held", "never", model="held-model")])
    canceled = batches.cancel(held.id)
    seen = {
        "version": anthropic.__version__,
        "created": shown(created),
        "ended": shown(wait_ended(batches, created.id)),
        "results": {line.custom_id: row(line.result) for line in batches.results(created.id)},
        "listed_in_order": [batch.id for batch in batches.list(limit=2)] == [held.id, created.id, *reversed(made)],
        "canceled": shown(canceled),
        "canceled_ended": shown(wait_ended(batches, held.id)),
        "canceled_results": {line.custom_id: row(line.result) for line in batches.results(held.id)},
        "deleted": deleted(batches, made[0]),
        "errors": {
            "unknown": error(lambda: batches.retrieve("msgbatch_01AAAAAAAAAAAAAAAAAAAAAA")),
            "empty": error(lambda: batches.create(requests=[])),
            "too_large": error(lambda: batches.create(requests=[request("a", "x" * (257 * 1024 * 1024))])),
            "wrong_key": error(lambda: stranger.retrieve(created.id)),
        },
        "message": messages.create(**params("hello")).content[0].text,
        "streamed": streamed(messages),
    }
    json.dump(seen, sys.stdout)


def batches_of(client):
    """Before version 0.43 they were found under `beta` only."""
    return getattr(client.messages, "batches", None) or client.beta.messages.batches


def params(text, **more):
    return {"model": "claude-test", "max_tokens": 16, "messages": [{"role": "user", "content": text}], **more}


def request(custom_id, text, **more):
    return {"custom_id": custom_id, "params": params(text, **more)}


def wait_ended(batches, batch_id):
    while True:
        batch = batches.retrieve(batch_id)
        if batch.processing_status == "ended":
            return batch


def shown(batch):
    """The parts of a batch that are the same in every run, and whether its instants were understood."""
    counts = batch.request_counts
    return {
        "status": batch.processing_status,
        "counts": [counts.processing, counts.succeeded, counts.errored, counts.canceled, counts.expired],
        "hours": (batch.expires_at - batch.created_at).total_seconds() / 3600,
        "has_end": batch.ended_at is not None,
        "has_results": batch.results_url is not None,
    }


def row(result):
    if result.type == "succeeded":
        return result.message.content[0].text
    return result.error.error.message if result.type == "errored" else result.type


def deleted(batches, batch_id):
    """What delete says and what is found after; null if this SDK has no delete."""
    if not hasattr(batches, "delete"):
        return None
    said = batches.delete(batch_id)
    return [said.type, said.id == batch_id, error(lambda: batches.retrieve(batch_id))[0]]


def error(call):
    """Class, status and `error.type` of the exception that a call raises."""
    try:
        call()
    except anthropic.APIStatusError as raised:
        return [type(raised).__name__, raised.status_code, raised.body["error"]["type"]]
    return None


def streamed(messages):
    with messages.stream(**params("a few words")) as stream:
        return "".join(stream.text_stream)


if __name__ == "__main__":
    main()
