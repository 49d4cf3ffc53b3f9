// What a program does with batches, through the official TypeScript SDK: `node scenario.mjs URL KEY`.
// The same as ../python/scenario.py, and it prints the same.

import Anthropic from "@anthropic-ai/sdk";
import { VERSION } from "@anthropic-ai/sdk/version";

const [url, key] = process.argv.slice(2);
const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const batches = client.messages.batches;

function params(text, more = {}) {
  return { model: "claude-test", max_tokens: 16, messages: [{ role: "user", content: text }], ...more };
}

function request(customId, text, more = {}) {
  return { custom_id: customId, params: params(text, more) };
}

async function waitEnded(batchId) {
  for (;;) {
    const batch = await batches.retrieve(batchId);
    if (batch.processing_status === "ended") return batch;
  }
}

function shown(batch) {
  const counts = batch.request_counts;
  return {
    status: batch.processing_status,
    counts: [counts.processing, counts.succeeded, counts.errored, counts.canceled, counts.expired],
    hours: (Date.parse(batch.expires_at) - Date.parse(batch.created_at)) / 3_600_000,
    has_end: batch.ended_at !== null,
    has_results: batch.results_url !== null,
  };
}

function row(result) {
  if (result.type === "succeeded") return result.message.content[0].text;
  return result.type === "errored" ? result.error.error.message : result.type;
}

async function results(batchId) {
  const rows = {};
  for await (const line of await batches.results(batchId)) rows[line.custom_id] = row(line.result);
  return rows;
}

async function listed() {
  const ids = [];
  for await (const batch of batches.list({ limit: 2 })) ids.push(batch.id);
  return ids;
}

async function error(call) {
  try {
    await call();
  } catch (raised) {
    if (!(raised instanceof Anthropic.APIError)) throw raised;
    return [raised.constructor.name, raised.status, raised.error?.error?.type ?? null];
  }
  return null;
}

async function deleted(batchId) {
  const said = await batches.delete(batchId);
  return [said.type, said.id === batchId, (await error(() => batches.retrieve(batchId)))[0]];
}

async function streamed() {
  let text = "";
  for await (const event of client.messages.stream(params("a few words"))) {
    if (event.type === "content_block_delta") text += event.delta.text;
  }
  return text;
}

const made = [];
for (let number = 0; number < 6; number++) {
  made.push((await batches.create({ requests: [request(`row-${number}`, `text ${number}`)] })).id);
}
const created = await batches.create({
  requests: [request("a", "one"), request("b", "two"), request("bad", "three", { max_tokens: 0 })],
});
const held = await batches.create({ requests: [request("held", "never", { model: "held-model" })] });
const canceled = await batches.cancel(held.id);
const stranger = new Anthropic({ baseURL: url, apiKey: "wrong", maxRetries: 0 });
const seen = {
  version: VERSION,
  created: shown(created),
  ended: shown(await waitEnded(created.id)),
  results: await results(created.id),
  listed_in_order: (await listed()).join() === [held.id, created.id, ...made.toReversed()].join(),
  canceled: shown(canceled),
  canceled_ended: shown(await waitEnded(held.id)),
  canceled_results: await results(held.id),
  deleted: await deleted(made[0]),
  errors: {
    unknown: await error(() => batches.retrieve("msgbatch_01AAAAAAAAAAAAAAAAAAAAAA")),
    empty: await error(() => batches.create({ requests: [] })),
    too_large: await error(() => batches.create({ requests: [request("a", "x".repeat(257 * 1024 * 1024))] })),
    wrong_key: await error(() => stranger.messages.batches.retrieve(created.id)),
  },
  message: (await client.messages.create(params("hello"))).content[0].text,
  streamed: await streamed(),
};
process.stdout.write(JSON.stringify(seen));
