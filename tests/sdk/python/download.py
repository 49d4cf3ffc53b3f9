"""Downloads the results of a batch with the official SDK: `download.py URL BATCH_ID ACCEPT_ENCODING`.

Prints how many rows came and the SHA-256 over all of them, as lines of custom_id and text in the order of their ids.
"""

import hashlib
import json
import sys

from anthropic import Anthropic


def main() -> None:
    url, batch_id, accept_encoding = sys.argv[1:]
    client = Anthropic(base_url=url, api_key="any", default_headers={"Accept-Encoding": accept_encoding})
    rows = [
        f"{line.custom_id}\t{line.result.message.content[0].text}\n"
        for line in client.messages.batches.results(batch_id)
        if line.result.type == "succeeded"
    ]
    digest = hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()
    json.dump({"rows": len(rows), "sha256": digest}, sys.stdout)


if __name__ == "__main__":
    main()
