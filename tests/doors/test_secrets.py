"""Keys are nowhere but in the request: not in a repr, a log line, a note, or an error of ours."""

from __future__ import annotations

import logging
import traceback

import anthropic
import pytest
from talking import ask

from ratelimited_llm import Anthropic, BudgetExceeded, Groq, OpenAI, RequestExpired, budgets
from ratelimited_llm.simulator import Fault

KEY = "sk-very-secret-0123456789"
PROMPT = "a prompt that is nobody's business " * 4


def tell_all(client, *more):
    """Everything of ours that people print."""
    worker = client._runtime.worker
    account = client._account(client._runtime)
    runtime = client._runtime
    shown = [worker, account, account.pool("m"), runtime, runtime.limits, runtime.options, runtime.lane, budgets.memory]
    return "\n".join(repr(thing) + str(thing) for thing in [*shown, client._client._transport, *more])


@pytest.mark.parametrize("cls", [OpenAI, Groq])
def test_a_key_is_in_no_repr_and_no_log(simulator, door, caplog, cls):
    """Answers, refusals, failures and retries at DEBUG: our logger names no key and no whole prompt."""
    caplog.set_level(logging.DEBUG, logger="ratelimited_llm")
    refusal = Fault(status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "1"}, at=(1,))
    faults = [refusal, Fault(status=500, at=(2,)), Fault(status=400, at=(4,))]
    provider = simulator("groq" if cls is Groq else "openai", faults=faults)
    client = door(cls, provider, api_key=KEY, rpm=6_000)
    answers = [ask(client, PROMPT)]
    answers[0].result()
    answers.append(ask(client, PROMPT))
    error = answers[1].exception()
    records = [record for record in caplog.records if record.name.startswith("ratelimited_llm")]
    ours = "\n".join(record.getMessage() + str(vars(record)) for record in records)
    for text in (ours, tell_all(client, client, *answers), "".join(error.__notes__)):
        assert KEY not in text
        assert PROMPT not in text


def test_a_key_is_in_no_error_of_ours(simulator, door):
    """BudgetExceeded and RequestExpired, with their tracebacks as they are printed."""
    client = door(OpenAI, simulator(), api_key=KEY, rpm=1, tpm=200)
    assert ask(client, max_tokens=5).id
    with pytest.raises(BudgetExceeded) as first:
        ask(client, "x" * 8000)
    with pytest.raises(RequestExpired) as second:
        ask(client.with_options(deadline=0.02), max_tokens=5).result()
    for caught in (first, second):
        assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_key_is_in_no_error_of_the_sdk_that_we_noted(simulator, door):
    """The printed failure of a call, notes included."""
    client = door(Anthropic, simulator("anthropic", faults=[Fault(status=401)]), api_key=KEY)
    with pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(model="c", max_tokens=5, messages=[{"role": "user", "content": "x"}]).result()
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_what_is_kept_of_a_key_is_a_digest(simulator, door):
    """The pools that outlive a client know the key by its digest only."""
    client = door(OpenAI, simulator(), api_key=KEY)
    assert ask(client).id
    pool = client._account(client._runtime).pool("m")
    assert KEY not in repr(vars(pool))
    assert KEY not in repr(vars(client._account(client._runtime)))
