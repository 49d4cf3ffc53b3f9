// What the course of text 003 lets one write in TypeScript, with nothing changed for our server: `node reviews.mjs`.
// Where it is, and its key, come from ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY. It asks again at once where a person's
// program waits.

import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic();

async function createBatch(texts) {
  const batch = await client.messages.batches.create({
    requests: texts.map((text, i) => ({
      custom_id: `request-${i}`,
      params: {
        model: "claude-haiku-3-5-20241022",
        max_tokens: 100,
        messages: [{ role: "user", content: `Summarize: ${text}` }],
      },
    })),
  });
  console.log(`Batch ID: ${batch.id}`);
  console.log(`Status: ${batch.processing_status}`);
  return batch.id;
}

async function checkStatus(batchId) {
  const batch = await client.messages.batches.retrieve(batchId);
  if (batch.processing_status !== "ended") return false;
  console.log(`Status: ${batch.processing_status}`);
  console.log(`Succeeded: ${batch.request_counts.succeeded}`);
  console.log(`Errored: ${batch.request_counts.errored}`);
  console.log(`Processing: ${batch.request_counts.processing}`);
  return true;
}

async function getResults(batchId) {
  const results = [];
  for await (const result of await client.messages.batches.results(batchId)) {
    results.push({
      id: result.custom_id,
      type: result.result.type,
      text: result.result.type === "succeeded" ? result.result.message.content[0].text : null,
      error: result.result.type === "errored" ? result.result.error.error.type : null,
    });
  }
  return results.sort((one, other) => one.id.localeCompare(other.id));
}

const batchId = await createBatch(["a first text", "a second text", "a third text"]);
while (!(await checkStatus(batchId)));
console.log(JSON.stringify(await getResults(batchId)));
