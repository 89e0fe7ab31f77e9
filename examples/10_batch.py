"""How do a file's lines become a file of answers? With client.batch; called again, it does only what is missing."""

import json
import tempfile
from pathlib import Path

from ratelimited_llm import OpenAI

REVIEWS = [
    "The kettle boils in a minute and looks good doing it.",
    "Arrived with a dent, and nobody answers my mails.",
    "Does what it says. The lid sticks a little.",
    "My third one; the other two went to my sisters.",
]

HOW = {"prompt": "Positive or negative? {review}", "model": "gpt-4.1-mini"}

client = OpenAI()
with tempfile.TemporaryDirectory() as folder:
    source, target = Path(folder, "reviews.csv"), Path(folder, "answers.jsonl")
    source.write_text("id,review\n" + "".join(f'r{number},"{review}"\n' for number, review in enumerate(REVIEWS)))

    # In a shell: ratelimited-llm batch reviews.csv -o answers.jsonl --model ... --prompt "Positive ... {review}"
    taste = client.batch(source, target, limit=2, **HOW)
    print(f"a taste: {taste.answered} of {len(REVIEWS)} answered")

    whole = client.batch(source, target, **HOW)
    print(f"the rest: {whole.answered} answered, {whole.skipped} were there already, {whole.failed} failed")

    # Each line is one of OpenAI's Batch API: the custom_id tells whose answer it is.
    for line in target.read_text().splitlines():
        row = json.loads(line)
        print(row["custom_id"], row["response"]["body"]["choices"][0]["message"]["content"][:50])
