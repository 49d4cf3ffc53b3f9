"""What the course of text 003 lets one write in Python, with nothing changed for our server: `python reviews.py`.

Where it is, and its key, come from ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY. It asks again at once where a person's
program waits ten seconds.
"""

import json

from anthropic import Anthropic

REVIEWS = ["I love it.", "It broke on the first day.", "Never again!"]


def main() -> None:
    client = Anthropic()
    batch = client.messages.batches.create(
        requests=[
            {
                "custom_id": f"review-{i}",
                "params": {
                    "model": "claude-haiku-3-5-20241022",
                    "max_tokens": 10,
                    "messages": [
                        {
                            "role": "user",
                            "content": f"Positive, negative or neutral? Reply with just the label.\n{review}",
                        }
                    ],
                },
            }
            for i, review in enumerate(REVIEWS)
        ]
    )
    print(f"Batch created: {batch.id} ({len(REVIEWS)} reviews)")

    while batch.processing_status != "ended":
        batch = client.messages.batches.retrieve(batch.id)
        counts = batch.request_counts
        print(f"Status: {batch.processing_status} | Done: {counts.succeeded + counts.errored}")

    labelled = []
    for result in client.messages.batches.results(batch.id):
        i = int(result.custom_id.split("-")[1])
        if result.result.type == "succeeded":
            sentiment = result.result.message.content[0].text.strip().lower()
        else:
            sentiment = "error"
        labelled.append({"review": REVIEWS[i], "sentiment": sentiment})
    print(json.dumps(sorted(labelled, key=lambda found: found["review"])))


if __name__ == "__main__":
    main()
