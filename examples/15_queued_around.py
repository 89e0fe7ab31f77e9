"""What about a client that is wrapped already? Put the queue around it, whatever it is."""

from openai import OpenAI

from ratelimited_llm.wrapped import queued


class Traced:
    """What a tracer does: it keeps the client's shape, and reads each answer inside of the call."""

    def __init__(self, client: OpenAI) -> None:
        self._client = client
        self.spent = 0
        self.chat = self.completions = self  # client.chat.completions.create

    def create(self, **body):
        answer = self._client.chat.completions.create(**body)
        self.spent += answer.usage.total_tokens
        return answer

    def close(self) -> None:
        self._client.close()


traced = Traced(OpenAI(max_retries=0))  # no retries of its own: the queue knows when it may go again

with queued(traced, rpm=600) as client:
    # Around our own OpenAI, the tracer would read one answer before the next call was made. So these run side by side.
    facts = [
        client.chat.completions.create(
            model="gpt-4.1-mini",
            messages=[{"role": "user", "content": f"Name a river in {country}."}],
            max_tokens=30,
        )
        for country in ("Chile", "Ghana", "Laos", "Norway", "Peru", "Romania")
    ]
    for fact in facts:
        print(f"{fact.choices[0].message.content:.70}")

    # The plain object, in this thread, for code that cannot have a future:
    answer = client.with_options(mode="blocking", priority="high").chat.completions.create(
        model="gpt-4.1-mini", messages=[{"role": "user", "content": "And one in Fiji?"}], max_tokens=30
    )
    print(type(answer).__name__, "of", answer.model)

print(traced.spent > 0 and "the tracer saw every answer")
