"""ratelimited_llm: put it in front of the import, and no call to an LLM is refused or lost.

    from ratelimited_llm import OpenAI                     # was: from openai import OpenAI
    client = OpenAI()
    answers = [client.chat.completions.create(model="gpt-4.1-mini", messages=m) for m in prompts]   # returns at once
    for a in answers:
        print(a.choices[0].message.content)                # waits here

Names are imported when they are first used (PEP 562), so that importing this costs no SDK.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Anthropic": "anthropic",
    "AsyncAnthropic": "anthropic",
    "AsyncAzureOpenAI": "openai",
    "AsyncGroq": "groq",
    "AsyncOpenAI": "openai",
    "AsyncRateLimitedWorker": "aio",
    "AzureOpenAI": "openai",
    "BudgetExceeded": "exceptions",
    "CostLimitReached": "exceptions",
    "Groq": "groq",
    "Journal": "stores.journal",
    "JournalError": "exceptions",
    "OpenAI": "openai",
    "Priority": "core.request",
    "Processor": "processors",
    "QueueManager": "manager",
    "QueueFull": "exceptions",
    "RateLimitedExecutor": "executor",
    "RateLimitedLLMError": "exceptions",
    "RateLimitedWorker": "worker",
    "RateLimits": "core.limits",
    "RequestExpired": "exceptions",
    "ResponseFuture": "future",
    "SharedStoreLost": "exceptions",
    "SizeClasses": "core.size_classes",
    "WorkerStopped": "exceptions",
    "as_future": "future",
    "queued": "wrapped",
    "report_usage": "functions.function_job",
}
_MODULES = ("anthropic", "groq", "openai", "requests", "simulator", "telemetry", "testing")

__all__ = [
    "Anthropic",
    "AsyncAnthropic",
    "AsyncAzureOpenAI",
    "AsyncGroq",
    "AsyncOpenAI",
    "AsyncRateLimitedWorker",
    "AzureOpenAI",
    "BudgetExceeded",
    "CostLimitReached",
    "Groq",
    "Journal",
    "JournalError",
    "OpenAI",
    "Priority",
    "Processor",
    "QueueFull",
    "QueueManager",
    "RateLimitedExecutor",
    "RateLimitedLLMError",
    "RateLimitedWorker",
    "RateLimits",
    "RequestExpired",
    "ResponseFuture",
    "SharedStoreLost",
    "SizeClasses",
    "WorkerStopped",
    "as_future",
    "queued",
    "report_usage",
]

if TYPE_CHECKING:
    from .aio import AsyncRateLimitedWorker
    from .anthropic import Anthropic, AsyncAnthropic
    from .core.limits import RateLimits
    from .core.request import Priority
    from .core.size_classes import SizeClasses
    from .exceptions import (
        BudgetExceeded,
        CostLimitReached,
        JournalError,
        QueueFull,
        RateLimitedLLMError,
        RequestExpired,
        SharedStoreLost,
        WorkerStopped,
    )
    from .executor import RateLimitedExecutor, report_usage
    from .future import ResponseFuture, as_future
    from .groq import AsyncGroq, Groq
    from .manager import QueueManager
    from .openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
    from .processors import Processor
    from .stores.journal import Journal
    from .worker import RateLimitedWorker
    from .wrapped import queued


if os.environ.get("RATELIMITED_LLM_LOG"):
    from .notices import log_as_environment_says

    log_as_environment_says()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
