"""My service hands out request ids: how does it enqueue, look, cancel, pause and call back?"""

from openai.types.chat import ChatCompletion

from ratelimited_llm import OpenAI
from ratelimited_llm.manager import QueueManager

QUESTIONS = ["Capital of Peru?", "Tallest mountain of Wales?", "Colour of a ripe lime?", "Wheels of a tricycle?"]


def chat(text: str) -> dict[str, object]:
    return {"model": "gpt-4.1-mini", "max_tokens": 60, "messages": [{"role": "user", "content": text}]}


def answered(request_id: str, answer: ChatCompletion | None, error: BaseException | None) -> None:
    """Called once for each request, whatever its end."""
    how = f"{answer.usage.total_tokens} tokens" if answer is not None and answer.usage else type(error).__name__
    print(f"{request_id[:6]}  ended: {how}")


# The limits are the client's. Everything else works as with a Processor of your own: see the next example.
with QueueManager(client=OpenAI(), size_classes=True, keep_results=600.0) as manager:
    manager.pause()  # so that there is something to see
    ids = [manager.enqueue_request("/v1/chat/completions", chat(text), callback=answered) for text in QUESTIONS]
    urgent = manager.enqueue_request("chat.completions", chat("Who is waiting?"), priority="high", tenant="acme")
    print(manager.get_queue_length())

    following = manager.get_next_request()
    print("next is the urgent one:", following is not None and following["request_id"] == urgent)
    print("cancelled:", bool(manager.cancel_request(ids[-1])))

    manager.resume()
    print(manager.get_result(urgent).choices[0].message.content[:40], "...")

status = manager.get_request_status(ids[0])
print(status["status"], status["priority"], f"after {status['attempts']} attempt")
metrics = manager.get_metrics()
print({name: metrics[name] for name in ("completed_total", "cancelled_total", "success_rate_percent", "low_completed")})
