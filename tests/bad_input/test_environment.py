"""Every variable of ours with values that make no sense: its name in an error, or a line in the log."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import openai
import pytest

import ratelimited_llm
from ratelimited_llm import OpenAI, RateLimits, queued
from ratelimited_llm.notices import log_as_environment_says
from ratelimited_llm.telemetry import autostart

NUMBERS = "nan inf -inf 0 -5 x 1e999 ² 0x10"
# What is refused when a client is made, by variable.
REFUSED = {
    **dict.fromkeys(["RPM", "TPM", "RPD", "TPD"], NUMBERS), "MAX_COST": NUMBERS + " -1", "MODE": "async 0 FUTURE nan",
    "BUDGET": "x 0 redis:// sqlite: http://host", "QUEUE": "x 0 redis://host dramatiq+redis:// celery+http://host",
    "ON_BUDGET_LOST": "x 0 local/0 local/x raise/8 local/\u00b2 local/" + "9" * 5000,
    "JOURNAL": "/no/such/folder/run.db :memory: /",
}  # fmt: skip
SAID = {"PROGRESS": "x 2 nan", "METRICS_PORT": "x -1 99999 1.5", "LOG": "x 0 verbose"}  # and gone on without
# Any text is a value: a switch that is on or off, a name of a host or a folder, a secret.
ANY = {"DISABLE", "OTEL", "STATE", "METRICS_HOST", "TOKEN"}
PREFIX = "RATELIMITED_LLM_"
CALLED = {"QUEUE": "queue=", "JOURNAL": "journal"}  # whose errors say what they want without the variable's name


def values(table):
    return [(name, value) for name, texts in table.items() for value in texts.split()]


def client(**given):
    return OpenAI(api_key="sk", http_client=PLAIN, **given)


PLAIN = openai.DefaultHttpxClient()


def test_every_variable_that_is_read_is_in_a_table():
    """Read out of the source."""
    text = "".join(path.read_text() for path in Path(ratelimited_llm.__file__).parent.rglob("*.py"))
    read = {*re.findall(PREFIX + r"([A-Z_]*[A-Z])", text), *re.findall(r'PREFIX \+ "([A-Z_]+)"', text)}
    read |= {name.upper() for name in ("rpm", "tpm", "rpd", "tpd")}  # by `limits_from_environment`
    assert read == {*REFUSED, *SAID, *ANY}


@pytest.mark.parametrize(("name", "value"), values(REFUSED))
def test_a_variable_that_makes_no_sense_is_refused_by_its_name(monkeypatch, name, value):
    """When a client is made; an argument that says the same takes its place."""
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises((ValueError, ratelimited_llm.JournalError), match=CALLED.get(name, PREFIX + name)):
        client()
    instead = {"MODE": "future", "BUDGET": "memory", "QUEUE": False, "JOURNAL": False, "ON_BUDGET_LOST": "local"}
    client(**{name.lower(): instead.get(name, 5)})


def test_a_limit_in_the_environment_gives_way_to_one_that_is_said_by_its_long_name(monkeypatch):
    """They are the same limit, and were both said by different people."""
    monkeypatch.setenv(PREFIX + "RPM", "100")
    assert client(max_requests_per_minute=500)._runtime.limits == RateLimits(rpm=500)
    assert client(rpm=None)._runtime.limits == client()._runtime.limits == RateLimits(rpm=100)


@pytest.mark.parametrize("value", REFUSED["MODE"].split())
def test_a_mode_that_is_none_is_refused_by_queued_as_well(monkeypatch, value):
    """It reads the same variable."""
    monkeypatch.setenv(PREFIX + "MODE", value)
    with pytest.raises(ValueError, match=PREFIX + "MODE"):
        queued(Sdk())


class Sdk:
    """A client of somebody's."""

    def create(self, **kwargs):
        return kwargs


@pytest.mark.parametrize(("name", "value"), values(SAID))
def test_a_variable_that_stops_nobody_is_said_in_the_log(monkeypatch, caplog, name, value):
    """Once, with its name; the client works."""
    monkeypatch.setenv(PREFIX + name, value)
    autostart._asked.clear()
    with caplog.at_level(logging.WARNING, "ratelimited_llm"):
        client()
        log_as_environment_says()
    assert [record for record in caplog.records if PREFIX + name in record.getMessage()] != []


@pytest.mark.parametrize("value", ["x", "nan", "0", " ", "1"])
def test_a_variable_of_any_text_does_no_harm(monkeypatch, value):
    """Whatever it is."""
    for name in ANY:
        monkeypatch.setenv(PREFIX + name, value)
    client()
