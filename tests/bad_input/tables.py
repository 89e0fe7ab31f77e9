"""Values that make no sense, where some of them do make sense, and what needs no table."""

from __future__ import annotations

import math

BAD = {
    "None": None, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-1": -1, "0": 0, "-0.5": -0.5, "1.5": 1.5,
    "1e308": 1e308, "10**400": 10**400, "True": True, "empty": "", "text": "x", "surrogate": "\ud800", "bytes": b"x",
    "list": [], "list_of_nan": [math.nan], "dict": {}, "dict_of_nan": {"a": math.nan}, "dict_of_int": {1: 1},
    "tuple": (1,), "object": object(),
}  # fmt: skip
EVERYTHING = " ".join(BAD)
LIMIT, SECONDS, COUNT, NAME = "-1 1.5 1e308", "inf 1.5 1e308", "0 10**400", "empty text"
WAIT = "-1 0 -0.5 -inf inf 1.5 1e308"  # of `concurrent.futures`: what is past is over

# Which of the bad values are good ones, by argument: the same name is the same thing everywhere, unless ELSEWHERE says
# otherwise. None is good, besides, where it is the default, and for options that are given by name only.
GOOD = {
    **dict.fromkeys(["rpm", "tpm", "rpd", "tpd", "itpm", "otpm", "min_interval"], LIMIT),
    **dict.fromkeys(["max_requests_per_minute", "max_tokens_per_minute", "max_requests_per_day"], LIMIT),
    **dict.fromkeys(["max_tokens_per_day", "max_input_tokens_per_minute", "max_output_tokens_per_minute"], LIMIT),
    **dict.fromkeys(["max_concurrency", "burst"], "-1 1e308"),
    **dict.fromkeys(["deadline", "max_wait", "max_time"], SECONDS), "keep_results": f"None {SECONDS}",
    **dict.fromkeys(["max_retries", "tokens", "token_count", "input_tokens", "output_tokens"], COUNT),
    **dict.fromkeys(["max_queue", "max_queue_per_tenant", "max_workers", "max_body"], "10**400"),
    "max_results": "None 10**400", "hosts": "text list dict dict_of_nan",
    **dict.fromkeys(["limit", "buffersize", "pool_connections", "pool_maxsize"], "10**400"),
    **dict.fromkeys(["ageing", "max_cost", "latency"], "1.5 1e308"), **dict.fromkeys(["weights", "prices"], "dict"),
    **dict.fromkeys(["tenant", "tag", "base_url", "prompt"], NAME),
    **dict.fromkeys(["model", "token", "budget_name", "path", "host", "source", "target", "errors"], "text"),
    "timeout": WAIT,
    **dict.fromkeys(["safety_margin", "priority", "port"], "0"), **dict.fromkeys(["size_classes", "progress"], "True"),
    **dict.fromkeys(["payload", "chunksize"], EVERYTHING), "calls": "text surrogate dict_of_nan", "queue": "empty",
    **dict.fromkeys(["base_urls", "api_keys"], "dict"), "seed": "-1 0 10**400",
    "futures": "list list_of_nan dict dict_of_nan dict_of_int tuple", "request_id": "empty text surrogate",
}  # fmt: skip
CHANGED = dict.fromkeys(["rpm", "tpm", "rpd", "tpd", "itpm", "otpm", "max_concurrency"], "1.5")
PACED = {**CHANGED, "period": "1.5", "smooth": "1.5"}
SIMULATED = {**PACED, "window_offset": "-1 0 -0.5 1.5"}
PLAIN = "empty text surrogate"  # a string
CALL = {
    **dict.fromkeys(["at", "deadline", "latency", "cancel_at"], "0 1.5 1e308"), "pool": NAME,
    **dict.fromkeys(["prompt", "output", "max_tokens"], "0"),
}  # fmt: skip
ELSEWHERE = {
    **dict.fromkeys(["Enforcement", "Allowance"], SIMULATED), **dict.fromkeys(["Call", "call"], CALL),
    "Simulator.change": CHANGED,
    "Simulator": {
        **PACED, **dict.fromkeys(["latency", "per_token_latency"], "0 1.5 1e308"), "output_tokens": COUNT,
        "log_size": "0", "api_key": PLAIN, "faults": "empty list dict",
    },
    "Simulator.share_used": {"model": PLAIN}, "Faults": {"rules": "empty list dict"}, "count_tokens": {"text": PLAIN},
    "Fault": {
        **dict.fromkeys(["status", "every"], "10**400"), **dict.fromkeys(["after", "first"], COUNT), "at": "tuple",
        "seconds": "0 inf 1.5 1e308", "probability": "0", "headers": "dict",
        **dict.fromkeys(["code", "type", "message", "model"], PLAIN),
    },
    "simulate": {
        "latency": "0 1.5 1e308", "until": WAIT, "calls": "list dict empty", "events": "list dict empty",
        "charge": "None", "smoothing": "1.5 1e308",
    },
    "VirtualClock": {"now": "-1 0 -0.5 1.5 1e308"}, "VirtualClock.advance": {"seconds": "0 1.5 1e308"},
    "QueueManager": {"timeout": SECONDS}, "create_app": {"journal": "text"}, "OpenAI": {"journal": "text"},
    "QueueManager.enqueue_request": {"timeout": SECONDS, "endpoint": "text"},
    "RateLimitedExecutor.map": {"fn": EVERYTHING},  # as ThreadPoolExecutor, whose futures say that it cannot be called
    "configure": {"hosts": "text list dict"}, "estimate": {"client": "None", "output_tokens": ""},
    "Conveniences.estimate": {"output_tokens": ""},
    "Priority.parse": {"value": "0"}, "Journal": {"max_age": "1.5 1e308"}, "serve": {"drain": "0 1.5 1e308"},
}  # fmt: skip
# What an error calls an argument that people do not give by its name.
CALLED = {
    "futures": r"gather\(\)", "fn": r"fn|map\(\)", "response": r"as_future\(\)", "value": "priority", "rules": "faults",
    "client": r"client|queued\(\)",
}  # fmt: skip

INSIDE = "between parts of the package, and none of them is untrusted"
MADE = "made by us, to be read"
THEIRS = "to the letter of what it stands in for, and tested with it"
OWN = "written by the user, and called by us"
APART = {
    "Seam.request": THEIRS, "FutureState": MADE,
    **dict.fromkeys([f"LightFuture.{name}" for name in (
        "result", "exception", "add_done_callback", "set_result", "set_exception")], THEIRS),
    **dict.fromkeys(["RateLimitedExecutor.submit", "Session.send", "Session.get_adapter", "LLMAdapter.send"], THEIRS),
    **dict.fromkeys(["post", "request"], THEIRS),
    **dict.fromkeys([f"RateLimitedWorker.{name}" for name in (
        "submit", "follow", "cancel", "unsent", "answered", "streaming", "stream_ended", "failed", "place", "survey",
    )], INSIDE),
    **dict.fromkeys([f"Journal.{name}" for name in (
        "number", "find", "enlist", "claim", "hand_out", "record", "release", "follow")], INSIDE),
    **dict.fromkeys([f"Processor.{name}" for name in (
        "validate", "estimate_tokens", "limit_group", "process", "classify_error", "usage")], OWN),
    **dict.fromkeys(["RateLimits.read", "RateLimits.part_of", "RateLimits.check"], INSIDE),
    **dict.fromkeys(["SizeClasses.read", "SizeClasses.of"], INSIDE),
    **dict.fromkeys(["SizeClasses", "Journal", "Journal.prune"], "tables of their own in test_arguments.py"),
    **dict.fromkeys([f"Enforcement.{name}" for name in (
        "admit", "settle", "reading", "change", "admissible", "share_used")], INSIDE),
    **dict.fromkeys(["Allowance.meter", "Fault.strikes", "Faults.pick"], INSIDE),
    **dict.fromkeys(["Counters", "Record", "Ticket", "Verdict", "Run", "BadLine", "BatchResult", "Line"], MADE),
    "Session.batch": "refused whatever is given", "Session.estimate": "refused whatever is given",
}  # fmt: skip
