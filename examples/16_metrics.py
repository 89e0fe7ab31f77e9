"""How do I see what my calls are doing: how long they wait, how long they take, what they cost?

Needs prometheus-client: pip install "ratelimited-llm[metrics]".
"""

from urllib.request import urlopen

from ratelimited_llm import OpenAI, telemetry

# For Prometheus. In a script that nobody edits, RATELIMITED_LLM_METRICS_PORT=9464 does the same. Port 0 is a free one.
server = telemetry.start_metrics_server(0)

client = OpenAI(rpm=1_200, burst=1)  # 20 calls a second and no burst, so that some of them wait
TOWNS = ["Lisbon", "Oslo", "Nairobi", "Lima", "Hanoi", "Perth", "Quito", "Riga"]
answers = [
    client.with_options(priority="high" if town == "Lima" else "normal").chat.completions.create(
        model="gpt-4.1-mini", messages=[{"role": "user", "content": f"One sight of {town}, in three words."}]
    )
    for town in TOWNS
]
for answer in answers:
    assert answer.choices

# What a scraper reads. Spans and metrics for OpenTelemetry need no line at all: they are there when your program has
# configured it.
with urlopen(server.url) as page:
    for line in page.read().decode().splitlines():
        if line.startswith("ratelimited_llm_") and "_bucket{" not in line:
            print(line)

telemetry.stop()
