"""The dashboard: a page that may do nothing but its own work, and orders that only it, or whoever has the token, gives.

What it looks like is for a person and a browser: see tests/browser/dashboard.py.
"""

import base64
import hashlib
import re
import shutil
import subprocess

import pytest
from serving_gateways import MESSAGES, in_thread, say
from waiting import wait_until

from ratelimited_llm.gateway.dashboard import FOLDER, HEADER, page
from ratelimited_llm.gateway.stats import __doc__ as fields
from ratelimited_llm.stores.opening import open_store

SCRIPT = (FOLDER / "dashboard.js").read_text(encoding="utf-8")
OURS = {HEADER: "1"}


@pytest.fixture
def waiting(serving):
    """A paused gateway with three requests of two tenants that wait."""
    running = serving()
    assert running.ask("/dashboard/pause", {}, **OURS).json == {"state": "paused"}
    running.ended = []
    for tenant in ("acme", "acme", "web"):
        headers = {"x-ratelimited-client": tenant}
        in_thread(lambda h=headers: running.ended.append(running.ask("/v1/chat/completions", say("x"), **h).status))
    wait_until(lambda: running.ask("/v1/queue/stats").json["queued"] == 3)
    return running


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_needs_no_token_and_holds_no_data(serving):
    """It asks for the token itself; what it shows comes from routes that want it."""
    running = serving(token="secret-token")
    answer = running.ask("/dashboard")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert b"secret-token" not in answer.body
    assert running.ask("/v1/queue/stats").status == 401


def test_the_page_is_allowed_its_own_script_and_style_and_nothing_else(gateway):
    """By their hashes, so nothing that got into the page could run; it cannot be framed, and posts no form."""
    answer = gateway.ask("/dashboard")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert (policy["connect-src"], policy["img-src"]) == ("'self'", "data:")
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    text = answer.body.decode()
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    for name, value in (("x-content-type-options", "nosniff"), ("cache-control", "no-store")):
        assert answer.headers[name] == value


def test_the_page_loads_nothing_from_anywhere():
    """No address but names of namespaces; no attribute that runs or fetches something."""
    text = page()[0].decode()
    assert set(re.findall(r"https?://[^\s\"'`<>]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"<(?:link|script|img|iframe)[^>]+(?:src|href)=\"(?!data:,)", text)
    assert not re.findall(r"\son\w+=", text)
    assert not re.findall(r"\sstyle=", text)


def test_the_script_makes_no_markup_of_what_it_is_told():
    """Nothing in it parses HTML or runs text."""
    forbidden = "innerHTML|outerHTML|insertAdjacentHTML|document\\.write|eval|new Function|DOMParser|createContextual"
    assert not re.findall(forbidden, SCRIPT)


def test_the_page_can_be_read_aloud():
    """A language, one heading of the first rank, names for all fields and buttons, and words for pictures."""
    text = page()[0].decode()
    assert '<html lang="en">' in text
    assert text.count("<h1>") == 1
    for control in re.findall(r"<(?:input|select) id=\"(\w+)\"", text):
        assert f'<label for="{control}">' in text
    assert 'role="alert"' in text
    assert 'role="status"' in text
    assert '"aria-label": words' in SCRIPT


def test_the_script_reads_only_fields_that_the_stats_have():
    """`told.name` in the script is a field that the docstring of `stats` promises."""
    body = SCRIPT.partition("function showFleet")[0]
    asked = set(re.findall(r"\btold\.(\w+)", body))
    assert asked
    for name in asked:
        assert re.search(rf"^    {name}\b", fields, re.M), name


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_script_is_javascript():
    """Node reads it without a complaint."""
    done = subprocess.run(["node", "--check", str(FOLDER / "dashboard.js")], capture_output=True, timeout=15)
    assert done.returncode == 0, done.stderr


# -- orders -----------------------------------------------------------------------------------------------------------


def test_pause_and_resume(waiting):
    """Nothing is sent until it is resumed; then everything is."""
    assert waiting.ask("/v1/queue/stats").json["state"] == "paused"
    assert waiting.ask("/dashboard/resume", {}, **OURS).json == {"state": "running"}
    wait_until(lambda: waiting.ended == [200, 200, 200])


def test_cancel_takes_a_tenants_requests_and_no_others(waiting):
    """Their clients are told; the others' are answered."""
    assert waiting.ask("/dashboard/cancel", {"tenant": "acme"}, **OURS).json == {"cancelled": 2}
    wait_until(lambda: len(waiting.ended) == 2)
    assert waiting.ask("/v1/queue/stats").json["queued"] == 1
    waiting.ask("/dashboard/resume", {}, **OURS)
    wait_until(lambda: sorted(waiting.ended) == [200, 503, 503])


def test_cancel_without_a_tenant_takes_all(waiting):
    """Those that were enqueued by id, too."""
    kept = waiting.ask("/v1/queue/requests", {"endpoint": "/v1/chat/completions", "body": say("kept")})
    assert kept.status == 202, kept.body
    wait_until(lambda: waiting.ask("/v1/queue/stats").json["queued"] == 4)
    assert waiting.ask("/dashboard/cancel", {}, **OURS).json == {"cancelled": 4}
    wait_until(lambda: waiting.ended == [503, 503, 503])


@pytest.mark.parametrize("name", ["pause", "resume", "cancel"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {HEADER: "1", "origin": "http://evil.example"},
        {HEADER: "1", "origin": "http://localhost:1"},
        {HEADER: "1", "origin": "null"},
        {HEADER: "1", "sec-fetch-site": "cross-site"},
        {HEADER: "1", "sec-fetch-site": "same-site"},
        {HEADER: "1", "host": "evil.example"},
    ],
)
def test_orders_of_other_pages_are_refused(name, headers, gateway):
    """Without the header, from another origin (another port of this machine is one), or to another name."""
    assert gateway.ask(f"/dashboard/{name}", {}, **headers).status == 403
    assert gateway.ask("/v1/queue/stats").json["state"] == "running"


def test_the_page_itself_may_order(gateway):
    """With what a browser adds to a request of the gateway's own page."""
    own = {**OURS, "origin": gateway.url, "sec-fetch-site": "same-origin"}
    assert gateway.ask("/dashboard/resume", {}, **own).status == 200


def test_orders_want_the_token(serving):
    """And so does the list of processes."""
    running = serving(token="secret-token")
    for name in ("pause", "resume", "cancel"):
        assert running.ask(f"/dashboard/{name}", {}, **OURS).status == 401
    assert running.ask("/dashboard/fleet").status == 401
    assert running.gateway.state == "running"
    allowed = {**OURS, "authorization": "Bearer secret-token"}
    assert running.ask("/dashboard/pause", {}, **allowed).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400), (b"[]", 400), (b'"all"', 400), ({"tenant": 3}, 400), ({"tenants": "a"}, 400),
        (b"[" * 5_000, 400), (b" " * 20_000, 413), (b"\xff", 400),
    ],
)  # fmt: skip
def test_an_order_that_makes_no_sense_cancels_nothing(body, status, waiting):
    """Least of all everything."""
    assert waiting.ask("/dashboard/cancel", body, **OURS).status == status
    assert waiting.ask("/v1/queue/stats").json["queued"] == 3


def test_a_hostile_tenants_name_arrives_as_it_is(serving):
    """Quoting is the page's task, which shows it as text."""
    running = serving()
    name = "<img src=x onerror=alert(1)>"
    running.ask("/dashboard/pause", {}, **OURS)
    in_thread(lambda: running.ask("/v1/chat/completions", say("x"), **{"x-ratelimited-client": name}))
    wait_until(lambda: name in running.ask("/v1/queue/stats").json["by_tenant"])


# -- who shares the budget --------------------------------------------------------------------------------------------


def test_without_a_shared_budget_there_is_no_fleet(gateway):
    """The page shows none then."""
    assert gateway.ask("/dashboard/fleet").status == 404


def test_the_fleet_is_everybody_who_shares_the_budget(serving, tmp_path):
    """Another process that has reported, and the gateway itself once it has sent something."""
    budget = f"sqlite:///{tmp_path / 'budget.db'}"
    store = open_store(budget)
    store.report("batch-1", {"role": "worker", "queued": 40})
    store.close()
    running = serving(budget=budget)
    body = {"model": "gpt-4.1-mini", "messages": MESSAGES}
    assert running.ask("/v1/chat/completions", body).status == 200
    told = running.ask("/dashboard/fleet").json
    assert "batch-1" in [worker["name"] for worker in told["workers"]]
    assert told["pools"][0]["label"].startswith("gpt-4.1-mini @ 127.0.0.1:")


def test_a_lost_budget_is_said_without_its_password(serving):
    """503, and the page says that it cannot be reached."""
    pytest.importorskip("redis")
    answer = serving(budget="redis://:sekret@127.0.0.1:1/0").ask("/dashboard/fleet")
    assert answer.status == 503
    assert b"sekret" not in answer.body
