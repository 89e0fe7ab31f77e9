"""My script posts to the API with plain requests, one call after the other: what changes?"""

import os

from ratelimited_llm import requests  # was: import requests

URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1") + "/chat/completions"
HEADERS = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
REVIEWS = [
    "Broke after a day.",
    "My daughter sleeps with it.",
    "Fine, I suppose.",
    "Two thumbs up!",
    "Wrong colour, kept it.",
]


def classify(review: str) -> requests.Response:
    """Post one question, as scripts always did; it returns at once with a future that is the Response."""
    return requests.post(
        URL,
        headers=HEADERS,
        json={
            "model": "gpt-4.1-mini",
            "messages": [{"role": "user", "content": f"Positive or negative? {review}"}],
            "max_tokens": 5,
        },
        timeout=25,  # seconds from when it is sent, however long it waits in the queue
    )


# A session's calls are queued, too, with limits and priority of their own; leaving it waits for its calls.
with requests.Session(priority="low") as session:
    session.headers.update(HEADERS)
    summary = session.post(URL, json={"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Sum it up."}]})

answers = [classify(review) for review in REVIEWS * 8]
for review, r in zip(REVIEWS, answers, strict=False):
    if r.status_code == 200:  # waits here; a 429 was waited out long before
        print(f"{review:30} {r.json()['choices'][0]['message']['content']:.40}")
    else:
        print(f"{review:30} failed: {r.status_code} {r.reason}")
print(f"all answered: {all(answers)}; summary: {summary.ok}; {requests.status().refused} refused")
