// Downloads the results of a batch: `node download.mjs URL BATCH_ID ACCEPT_ENCODING`.
// The same as ../python/download.py, and it prints the same.

import { createHash } from "node:crypto";

import Anthropic from "@anthropic-ai/sdk";

const [url, batchId, acceptEncoding] = process.argv.slice(2);
const client = new Anthropic({ baseURL: url, apiKey: "any", defaultHeaders: { "Accept-Encoding": acceptEncoding } });
const rows = [];
for await (const line of await client.messages.batches.results(batchId)) {
  if (line.result.type === "succeeded") rows.push(`${line.custom_id}\t${line.result.message.content[0].text}\n`);
}
const digest = createHash("sha256").update(rows.sort().join("")).digest("hex");
process.stdout.write(JSON.stringify({ rows: rows.length, sha256: digest }));
