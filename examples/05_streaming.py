"""Does stream=True still work, and can several streams be asked for at once?"""

from ratelimited_llm import OpenAI

TASKS = [
    "Write a limerick about a printer that only works on Tuesdays.",
    "Describe fog to somebody who has never left the desert.",
    "Explain in two sentences why the moon changes its shape.",
]

client = OpenAI()

# All three are queued now; each holds its place in the limits until it was read to the end or closed.
streams = [
    client.chat.completions.create(
        model="gpt-4.1-mini", messages=[{"role": "user", "content": task}], max_tokens=60, stream=True
    )
    for task in TASKS
]

for task, stream in zip(TASKS, streams, strict=True):
    print(f"> {task}")
    chunks = 0
    with stream:  # waits for the first bytes; closes the connection even when the loop is left early
        for chunk in stream:
            chunks += 1
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
    print(f"   [{chunks} chunks]")
