// JavaScript, queued inside the same limits as everybody else: only the base URL changes.
//
//   ratelimited-llm serve --port 8089 --rpm 500          # has the key: OPENAI_API_KEY
//   npm install openai
//   OPENAI_BASE_URL=http://127.0.0.1:8089/v1 OPENAI_API_KEY=any node 19_javascript.mjs
//
// and without any package:
//
//   curl http://127.0.0.1:8089/v1/chat/completions -H 'x-ratelimited-priority: high' \
//        -d '{"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Hello"}]}'

import OpenAI from "openai";

// The gateway waits as long as the limits say, and retries: the client should do neither.
const client = new OpenAI({ maxRetries: 0, timeout: 10 * 60 * 1000 });
const messages = (content) => [{ role: "user", content }];

const stream = await client.chat.completions.create(
  { model: "gpt-4.1-mini", messages: messages("Count to five."), stream: true },
  { headers: { "x-ratelimited-priority": "high", "x-ratelimited-client": "web" } },
);
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
process.stdout.write("\n");

// A hundred at once: the gateway sends them when the limits allow, and no 429 comes back.
const answers = await Promise.all(
  Array.from({ length: 100 }, (_, n) =>
    client.chat.completions.create(
      { model: "gpt-4.1-mini", messages: messages(`A word that begins like number ${n}.`) },
      { headers: { "x-ratelimited-priority": "low" } },
    ),
  ),
);
console.log(`${answers.length} answers, no refusals`);
