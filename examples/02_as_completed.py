"""How do I take each answer when it is there, and what of the calls that fail?"""

import json
from concurrent.futures import as_completed
from pathlib import Path

from ratelimited_llm import BudgetExceeded, RateLimitedLLMError, as_future
from ratelimited_llm.openai import APIError, OpenAI

lines = Path(__file__).with_name("prompts.jsonl").read_text(encoding="utf-8").splitlines()
reviews = [row for row in map(json.loads, lines) if row["task"] == "sentiment"]

client = OpenAI(tpm=200_000)
hurried = client.with_options(deadline=0.001)  # this one gives up before any provider could answer
calls = {}
for review in reviews:
    door = hurried if review is reviews[0] else client
    # The last one asks for an answer longer than a whole minute's tokens: it can never go.
    max_tokens = 500_000 if review is reviews[-1] else 8
    try:
        answer = door.chat.completions.create(
            model="gpt-4.1-mini",
            messages=[{"role": "user", "content": review["prompt"]}],
            max_tokens=max_tokens,
        )
    except BudgetExceeded as error:
        print(f"{review['id']} not queued: {error}")
    else:
        calls[as_future(answer)] = review["id"]  # the same object, only typed as the future that it is

answered = 0
for future in as_completed(calls, timeout=60):
    try:
        completion = future.result()
    except (APIError, RateLimitedLLMError) as error:  # the SDK's own exceptions, and the few of this package
        print(f"{calls[future]} failed: {type(error).__name__}: {error}")
    else:
        answered += 1
        if answered <= 3:
            print(f"{calls[future]}: {completion.choices[0].message.content}")
print(f"{answered} of {len(calls)} reviews answered; one failure stopped none of the others")
