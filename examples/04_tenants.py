"""One customer submits everything at once: how do the others get their turn?"""

from collections import defaultdict

from ratelimited_llm import OpenAI, as_future

# One call every 20 ms, so that a queue forms within this short script; real limits do the same by themselves.
client = OpenAI(min_interval=0.02)
customers = ("big-archive", "flower-shop", "night-school")
doors = {name: client.with_options(tenant=name) for name in customers}  # they share one queue
finished: list[str] = []


def ask(customer: str, question: str) -> None:
    answer = doors[customer].chat.completions.create(
        model="gpt-4.1-mini", messages=[{"role": "user", "content": question}], max_tokens=20
    )
    as_future(answer).add_done_callback(lambda _: finished.append(customer))


for page in range(1, 31):
    ask("big-archive", f"Give a title to page {page} of the parish register.")
for month in ("May", "June", "July"):
    ask("flower-shop", f"Which flowers are cheapest in {month}?")
    ask("night-school", f"Plan one Latin lesson for {month}.")

client.shutdown(wait=True)
places = defaultdict(list)
for place, customer in enumerate(finished, start=1):
    places[customer].append(place)
for customer in customers:
    mine = places[customer]
    print(f"{customer:12}  {len(mine):2} calls: first answered as number {mine[0]}, last as {mine[-1]}")
