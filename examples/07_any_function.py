"""How do I keep any function of mine inside a rate limit, without an SDK?"""

import time

from ratelimited_llm import RateLimitedExecutor, report_usage

start = time.monotonic()


def call_a_model(text: str) -> str:
    """Stand in for whatever calls a model: a tool, another library, another process."""
    began = time.monotonic() - start
    time.sleep(0.05)
    report_usage(input_tokens=len(text) // 4, output_tokens=len(text) // 4)  # what it really cost
    return f"{began:.2f} s  {text.upper()}"


SIGNS = ["Mind the step", "Wet paint", "No entry", "Ring twice", "Way out", "Keep left", "Lost property"]

# 600 a minute and no burst: one call every 0.1 s. Without burst=1 all seven would go at once and be within
# the limit as well; the tokens are counted in either case.
with RateLimitedExecutor(rpm=600, tpm=30_000, burst=1, max_concurrency=8) as executor:
    # tokens= is what a call will cost as far as one knows; report_usage() corrects it afterwards.
    futures = [executor.with_options(tokens=40).submit(call_a_model, sign) for sign in SIGNS]
    first = executor.with_options(tokens=40, priority="high").submit(call_a_model, "Fire exit")

print(first.result(), " (submitted last, with a high priority)")
for future in futures:
    print(future.result())
