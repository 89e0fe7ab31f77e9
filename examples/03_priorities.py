"""A nightly job fills the queue: how does the call of a waiting user go first?"""

from ratelimited_llm import OpenAI, as_future

# One call every 20 ms, so that a queue forms within this short script; real limits do the same by themselves.
client = OpenAI(min_interval=0.02)
nightly = client.with_options(priority="low")
urgent = client.with_options(priority="high")  # copies share the queue and the limits

finished: list[str] = []


def ask(door: OpenAI, name: str, question: str) -> None:
    answer = door.chat.completions.create(
        model="gpt-4.1-mini", messages=[{"role": "user", "content": question}], max_tokens=20
    )
    as_future(answer).add_done_callback(lambda _: finished.append(name))


for number in range(1, 31):
    ask(nightly, f"report {number}", f"Write a headline for the sales report of shop number {number}.")
ask(urgent, "the waiting user", "Is the shop in Mill Lane open on Sunday?")

client.shutdown(wait=True)
place = finished.index("the waiting user") + 1
print(f"asked last, after 30 reports; answered as number {place} of {len(finished)}")
print("first five:", ", ".join(finished[:5]))
print("last one:  ", finished[-1])
