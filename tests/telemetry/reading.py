"""Short ways to ask, and to read what was told."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from ratelimited_llm import telemetry

MESSAGES = [{"role": "user", "content": "my secret prompt"}]


def ask(client, **options):
    """One chat call."""
    options.setdefault("model", "m")
    return client.chat.completions.create(messages=MESSAGES, **options)


def scrape():
    """Every sample of ours as Prometheus reads it: {(name, (label, value)...): amount}."""
    text = telemetry.exposition()[0].decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        if family.name.startswith("ratelimited_llm_")
        for sample in family.samples
    }


def total(name, samples=None, **labels):
    """The sum of one name's samples that have these labels."""
    samples = scrape() if samples is None else samples
    wanted = set(labels.items())
    return sum(
        amount for key, amount in samples.items() if key[0] == "ratelimited_llm_" + name and wanted <= set(key[1:])
    )
