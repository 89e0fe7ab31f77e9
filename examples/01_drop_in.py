"""What has to change in an old script? One import; then ask everything first and read afterwards."""

import time

from ratelimited_llm import OpenAI  # was: from openai import OpenAI

QUESTIONS = [
    "Why does bread go stale faster in the fridge than on the counter?",
    "How many prime numbers are there between 40 and 60?",
    "Translate into German: Mind the step.",
    "Name three trees that keep their leaves in winter.",
    "What is the plural of octopus, and why do people argue about it?",
    "Write one line of apology for a late parcel.",
]

client = OpenAI()
start = time.monotonic()

# Every call returns at once: it is queued, sent when the limits allow, and retried when that helps.
answers = [
    client.chat.completions.create(model="gpt-4.1-mini", messages=[{"role": "user", "content": question}])
    for question in QUESTIONS
]
print(f"{len(answers)} questions asked after {time.monotonic() - start:.2f} s")

# Reading is what waits. The answers are in the order of the questions, whichever was finished first.
for question, answer in zip(QUESTIONS, answers, strict=True):
    print(f"{question[:40]:40}  {answer.choices[0].message.content:.60}")
print(f"{len(answers)} answers read after {time.monotonic() - start:.2f} s")
