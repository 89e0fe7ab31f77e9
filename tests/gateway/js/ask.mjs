// The unmodified openai package from npm, at a gateway by OPENAI_BASE_URL alone; prints what it got as JSON.
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const say = (content) => ({ model: "gpt-4.1-mini", messages: [{ role: "user", content }] });

const answer = await client.chat.completions.create(say("from node"));

let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...say("a b c"), stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}

const { response } = await client.chat.completions.create(say("raw")).withResponse();

let status = 0;
try {
  await client.chat.completions.create(say('!{"kind": "status", "status": 418}'));
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  status = error.status;
}

const gathered = await Promise.all(
  Array.from({ length: 20 }, (_, n) =>
    client.chat.completions.create(say(`${n}`), { headers: { "x-ratelimited-priority": n % 2 ? "high" : "low" } }),
  ),
);
const models = await client.models.list();

console.log(
  JSON.stringify({
    answer: answer.choices[0].message.content,
    streamed,
    raw: response.headers.get("x-ratelimited-attempts"),
    status,
    gathered: gathered.length,
    models: models.data.length > 0,
  }),
);
