"""What users can reach and give values to: read out of the package itself, so that nothing new is forgotten.

`surface()` answers each public callable by its name, and its parameters by theirs. Methods that several classes inherit
from one of ours are listed once, under the class that defines them; so are doors, whose constructor is the same code.
"""

from __future__ import annotations

import importlib
import inspect

import ratelimited_llm
import ratelimited_llm.batch
import ratelimited_llm.simulator
import ratelimited_llm.testing
from ratelimited_llm.core.limiter import Limiter
from ratelimited_llm.options import CALL_NAMES, LIMIT_NAMES
from ratelimited_llm.requests.settings import NAMES
from ratelimited_llm.runtime import OWN_NAMES
from ratelimited_llm.wrapped import QUEUE_NAMES

OURS = "ratelimited_llm"
MODULES = ("requests", "simulator", "telemetry", "testing", "gateway", "batch")
LIMITER = frozenset(inspect.signature(Limiter).parameters) - {"limits", "charge", "learn", "ramp"}
SIMULATED = frozenset({"rpm", "tpm", "rpd", "tpd", "itpm", "otpm", "max_concurrency"})


# What may be given where a signature has only **options. A callable that is missing here fails the test.
OPTIONS = {
    "OpenAI": OWN_NAMES, "OpenAI.with_options": frozenset(CALL_NAMES), "Session": NAMES, "LLMAdapter": NAMES,
    "configure": NAMES, "patch_requests": NAMES, "RateLimitedExecutor": LIMIT_NAMES, "QueueManager": LIMIT_NAMES,
    "AsyncRateLimitedWorker": LIMIT_NAMES, "queued": LIMIT_NAMES | {*CALL_NAMES, *QUEUE_NAMES},
    "create_app": OWN_NAMES,
    "Enforcement.change": SIMULATED, "Simulator.change": SIMULATED, "simulate": LIMITER,
    "queued().with_options": frozenset(CALL_NAMES),
    # The same as something else that is listed:
    **dict.fromkeys(["serve", "AsyncRateLimitedWorker.map"], frozenset()),
    # Whatever the function, or requests, takes:
    **dict.fromkeys(["AsyncRateLimitedWorker.run", "RateLimitedExecutor.submit", "post", "request"], frozenset()),
    **dict.fromkeys(["Session.send", "Session.batch", "Session.estimate", "LLMAdapter.send"], frozenset()),
}  # fmt: skip
ESTIMATE = importlib.import_module(f"{OURS}.batch.estimate").estimate
SAME = {
    "Conveniences.batch": ratelimited_llm.batch.run_batch, "Conveniences.estimate": ESTIMATE,
    "call": ratelimited_llm.testing.Call, "Enforcement": ratelimited_llm.simulator.Allowance,
    "RateLimits.replace": ratelimited_llm.RateLimits,
}  # fmt: skip
FLAGS = ("bool", "bool | None")  # whatever is given, it is true or not, as everywhere in Python
VARIOUS = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def surface():
    """{callable: {parameter: its default}}; for an option that only has a name, None."""
    found = {}
    for name, value in _public():
        if inspect.isclass(value):
            if issubclass(value, (BaseException, dict)):
                continue  # made by us, to be caught or read
            for method, function in _methods(name, value):
                found.setdefault(method, _parameters(method, function))
        else:
            found.setdefault(name, _parameters(name, value))
    found["OpenAI"] = dict.fromkeys(OPTIONS["OpenAI"])
    found["OpenAI.with_options"] = dict.fromkeys(OPTIONS["OpenAI.with_options"])
    found["queued().with_options"] = dict.fromkeys(OPTIONS["queued().with_options"])
    found["estimate"] = _parameters("estimate", ESTIMATE)
    return {name: parameters for name, parameters in found.items() if parameters}


def _public():
    for name in ratelimited_llm.__all__:
        yield name, getattr(ratelimited_llm, name)
    for module in MODULES:
        home = importlib.import_module(f"{OURS}.{module}")
        for name in home.__all__:
            value = getattr(home, name)
            if callable(value) and value.__module__.startswith(OURS):
                yield name, value


def is_door(kind):
    return "_provider_name" in vars(kind)


def _methods(name, kind):
    for base in kind.__mro__:
        if not base.__module__.startswith(OURS):
            continue
        for method, value in vars(base).items():
            function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            if is_door(base) or not inspect.isfunction(function) or (method[0] == "_" and method != "__init__"):
                continue
            owner = name if base is kind else base.__name__
            yield (owner if method == "__init__" else f"{owner}.{method}"), function


def _parameters(name, function):
    found = {}
    for each in inspect.signature(function).parameters.values():
        if each.kind is inspect.Parameter.VAR_KEYWORD and name in SAME:
            theirs = _parameters("", SAME[name])
            found.update({each: theirs[each] for each in theirs if each not in (*found, "client")})
        elif each.kind is inspect.Parameter.VAR_KEYWORD:
            found.update(dict.fromkeys(OPTIONS[name]))
        elif each.name not in ("self", "cls", "obj") and each.kind not in VARIOUS and each.annotation not in FLAGS:
            found[each.name] = each.default
    return found


def doors():
    """The classes that stand in for an SDK's client."""
    return [value for _, value in _public() if inspect.isclass(value) and is_door(value)]
