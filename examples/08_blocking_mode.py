"""My code has its own thread pool and wants plain answers: can calls block?"""

from concurrent.futures import ThreadPoolExecutor, as_completed

from ratelimited_llm.openai import OpenAI, RateLimitError

CITIES = ["Aveiro", "Gdynia", "Izmir", "Kochi", "Nantes", "Osaka", "Oulu", "Trieste", "Valdivia", "Yeosu"]

# Each call waits for its turn in the shared queue, then runs in the thread that made it, and returns a plain
# ChatCompletion. Nothing below this line knows that there is a queue.
client = OpenAI(mode="blocking")


def describe(city: str) -> str:
    completion = client.chat.completions.create(
        model="gpt-4.1-mini",
        messages=[{"role": "user", "content": f"Describe the harbour of {city} in one sentence."}],
        max_tokens=40,
    )
    return f"{city} ({type(completion).__name__}): {completion.choices[0].message.content:.60}"


with ThreadPoolExecutor(max_workers=5) as pool:
    futures = {pool.submit(describe, city): city for city in CITIES}
    for future in as_completed(futures):
        try:
            print(future.result())
        except RateLimitError as error:  # still the SDK's class, so that old handlers keep working
            print(f"{futures[future]}: gave up, {error}")
