"""`run_batch` against a real provider on loopback: what is written, what is resumed, and what stops it."""

from __future__ import annotations

import io
import json
import os
import signal
import threading

import openai
import pytest
from calling import call

from ratelimited_llm import Groq
from ratelimited_llm.anthropic import Anthropic
from ratelimited_llm.batch import BatchInterrupted, InputError, OutputError, run, run_batch
from ratelimited_llm.exceptions import CostLimitReached
from ratelimited_llm.simulator import Fault

GOOD_KEYS = {"id", "custom_id", "response", "error"}


def test_answers_are_openais_batch_output(simulator, client_of, files):
    """One line per call, with status, request id and the provider's own JSON; nothing else is there."""
    files.calls(5)
    result = run_batch(client_of(simulator(answer="echo")), files.input, files.output)
    assert (result.total, result.answered, result.failed, result.complete) == (5, 5, 0, True)
    assert (result.path, result.errors_path) == (str(files.output), str(files.errors))
    assert files.answered() == [f"c{number}" for number in range(5)]
    for row in files.rows():
        assert row.keys() == GOOD_KEYS
        assert row["id"].startswith("batch_req_")
        assert row["error"] is None
        assert row["response"]["status_code"] == 200
        assert row["response"]["request_id"].startswith("req_")
        text = row["response"]["body"]["choices"][0]["message"]["content"]
        assert text == f"question {row['custom_id'][1:]}"
    assert not files.errors.exists()
    assert os.stat(files.output).st_mode & 0o077 == 0


def test_the_body_is_sent_as_it_is(client_of, simulator, files):
    """Unknown fields included; and usage teaches the client what tokens cost."""
    files.write(call(1, some_new_field={"deep": [1]}), {"input": "x", "model": "text-embedding-3-small"})
    client = client_of(simulator())
    seen = []
    build = client._build_request
    client.__dict__["_build_request"] = lambda options, **more: seen.append(options) or build(options, **more)
    # The batch works with a copy of the client, which inherits nothing of this one's attributes but by `copy`.
    client.__dict__["with_options"] = lambda **options: client
    assert run_batch(client, files.input, files.output).answered == 2
    bodies = {options.url: options.json_data for options in seen}  # two models, so in either order
    assert bodies["/chat/completions"]["some_new_field"] == {"deep": [1]}
    assert bodies.keys() == {"/chat/completions", "/embeddings"}
    assert client._account(client._runtime).estimator.version >= 1


@pytest.mark.parametrize(
    ("provider", "cls", "url"),
    [("groq", Groq, "/v1/chat/completions"), ("anthropic", Anthropic, "/v1/messages")],
)
def test_other_doors_send_to_their_own_paths(simulator, client_of, files, provider, cls, url):
    """A line's url is OpenAI's spelling; the answer is the provider's own."""
    files.write({"url": url, "body": {**call(1)["body"], "max_tokens": 9}}, {"prompt": "hi"})
    result = run_batch(client_of(simulator(provider), cls), files.input, files.output, model="m")
    assert result.answered == 2, files.rows(files.errors)


def test_an_endpoint_that_the_provider_lacks_is_an_error_row(simulator, client_of, files):
    """It is not sent anywhere."""
    files.write(call(1))
    provider = simulator("anthropic")
    assert run_batch(client_of(provider, Anthropic), files.input, files.output).failed == 1
    (row,) = files.rows(files.errors)
    assert "anthropic has no endpoint /v1/chat/completions" in row["error"]["message"]
    assert provider.counters.requests == 0


def test_bad_lines_and_refused_calls_are_rows_of_the_errors_file(simulator, client_of, files):
    """With the line's number, or the provider's answer; the rest is answered."""
    files.write(call(1), b"nope", call(2, stream=True), call(3), call(4))
    provider = simulator(faults=[Fault(status=400, code="bad_thing", message="no: sk-test-secret", at=(2,))])
    result = run_batch(client_of(provider, max_concurrency=1), files.input, files.output)
    assert (result.total, result.answered, result.failed, result.bad) == (5, 2, 1, 2)
    bad, stream, refused = sorted(files.rows(files.errors), key=lambda row: row.get("line", 9))
    assert (bad["custom_id"], bad["line"], bad["response"]) == (None, 2, None)
    assert bad["error"]["code"] == "invalid_line"
    assert (stream["custom_id"], stream["line"]) == ("c2", 3)
    assert refused["custom_id"] == "c3"
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["code"] == refused["error"]["code"] == "bad_thing"
    assert b"sk-test-secret" not in files.errors.read_bytes()


def test_troubles_of_the_provider_are_retried_and_lose_nothing(simulator, client_of, files):
    """Refusals, errors, broken connections and HTML in between."""
    files.calls(30)
    provider = simulator(rpm=1200, faults=[Fault(status=503, every=7), Fault("reset", every=11)])
    assert run_batch(client_of(provider, max_retries=8), files.input, files.output).answered == 30


def test_html_instead_of_json_is_a_failed_row(simulator, client_of, files):
    """A proxy's page with status 200."""
    files.write(call(1))
    provider = simulator(faults=[Fault("html", status=200)])
    assert run_batch(client_of(provider), files.input, files.output).failed == 1
    assert files.rows(files.errors)[0]["error"]["message"]


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_the_same_call_again_sends_only_what_is_missing(simulator, client_of, files):
    """Answered lines are skipped, failed ones too; both are counted."""
    files.calls(6)
    provider = simulator(faults=[Fault(status=400, at=(1,))])
    client = client_of(provider, max_concurrency=1)
    first = run_batch(client, files.input, files.output, limit=4)
    again = run_batch(client, files.input, files.output)
    assert (first.answered, first.failed) == (3, 1)
    assert (again.total, again.answered, again.skipped, again.failed_before) == (6, 2, 3, 1)
    assert not again.complete
    assert provider.counters.requests == 6
    assert files.answered() == ["c1", "c2", "c3", "c4", "c5"]


def test_retry_failed_takes_what_succeeds_out_of_the_errors_file(simulator, client_of, files):
    """What fails again has one row, the newer; lines that were put right leave it too."""
    files.write(call(0), call(1), b"nope", b"bad again", call(4))
    provider = simulator(faults=[Fault(status=400, message="first", at=(1, 2)), Fault(status=400, at=(4,))])
    client = client_of(provider, max_concurrency=1)
    assert run_batch(client, files.input, files.output).failed == 2
    assert len(files.rows(files.errors)) == 4
    files.write(call(0), call(1), call(2), b"bad again", call(4))
    result = run_batch(client, files.input, files.output, retry_failed=True)
    assert (result.answered, result.failed, result.bad, result.skipped) == (2, 1, 1, 1)
    rows = files.rows(files.errors)
    assert sorted(str(row["custom_id"]) for row in rows) == ["None", "c0"] or len(rows) == 2
    assert all("first" not in row["error"]["message"] for row in rows)


def test_an_errors_file_without_errors_is_removed(simulator, client_of, files):
    """Nothing is left to look at."""
    files.calls(1)
    client = client_of(simulator(faults=[Fault(status=400, at=(1,))]))
    run_batch(client, files.input, files.output)
    assert files.errors.exists()
    assert run_batch(client, files.input, files.output, retry_failed=True).complete
    assert not files.errors.exists()
    assert len(files.folder.glob("*") and list(files.folder.iterdir())) == 2


def test_bad_lines_are_reported_once(simulator, client_of, files):
    """Resuming adds no second row for them."""
    files.write(b"nope", call(1))
    client = client_of(simulator())
    for _ in range(3):
        assert run_batch(client, files.input, files.output).bad == 1
    assert len(files.rows(files.errors)) == 1


@pytest.mark.parametrize(
    "tail", [b'{"id": "batch_req_12', b"{", b'{"id": "batch_req_0", "custom_id": "c\xc3', b"\0\0\0"]
)
def test_a_half_line_is_cut_off_and_its_call_made_again(simulator, client_of, files, tail):
    """And no whole line with it."""
    files.calls(3)
    client = client_of(simulator())
    run_batch(client, files.input, files.output, limit=2)
    whole = files.output.read_bytes()
    files.output.write_bytes(whole + tail)
    assert run_batch(client, files.input, files.output).answered == 1
    assert files.output.read_bytes().startswith(whole)
    assert files.answered() == ["c0", "c1", "c2"]


def test_a_whole_line_without_its_end_is_kept(simulator, client_of, files):
    """Editors cut off the last line end."""
    files.calls(3)
    client = client_of(simulator())
    run_batch(client, files.input, files.output, limit=2)
    files.output.write_bytes(files.output.read_bytes()[:-1])
    result = run_batch(client, files.input, files.output)
    assert (result.skipped, result.answered) == (2, 1)
    assert files.answered() == ["c0", "c1", "c2"]


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"hello\nworld\n",
        b'{"a": 1}\n',
        b"[]\n",
        b'{"custom_id": "a", "body": {}}\n',
        b'{"x": 1}\n{"id": "batch_req_',
    ],
)
def test_what_is_no_batch_output_is_never_changed(simulator, client_of, files, content):
    """A clear error, and the file as it was."""
    files.calls(1)
    client = client_of(simulator())
    for path in (files.output, files.errors):
        path.write_bytes(content)
        with pytest.raises(OutputError, match="is no output of a batch"):
            run_batch(client, files.input, files.output)
        assert path.read_bytes() == content
        files.output.unlink()


def test_openais_own_output_is_gone_on_with(simulator, client_of, files):
    """Other spacing, other ids."""
    files.calls(2)
    row = {"id": "x", "custom_id": "c0", "response": {"status_code": 200, "request_id": "r", "body": {}}, "error": None}
    files.output.write_text(json.dumps(row, separators=(",", ":")) + "\n")
    assert run_batch(client_of(simulator()), files.input, files.output).skipped == 1


def test_the_input_is_never_the_output(simulator, client_of, files):
    """Under no name."""
    files.calls(1)
    client = client_of(simulator())
    os.link(files.input, files.output)
    with pytest.raises(OutputError, match="is the input itself"):
        run_batch(client, files.input, files.output)
    with pytest.raises(OutputError, match="cannot take the answers and the errors"):
        run_batch(client, files.input, files.folder / "x", errors=files.folder / "x")


def test_a_missing_input_leaves_no_output_behind(simulator, client_of, files):
    """Nor does one that cannot be read so."""
    client = client_of(simulator())
    with pytest.raises(FileNotFoundError):
        run_batch(client, files.input, files.output)
    files.input.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column"):
        run_batch(client, files.input.rename(files.folder / "x.csv"), files.output, prompt="{c}", model="m")
    assert not files.output.exists()


def test_a_second_batch_on_one_output_is_refused(simulator, client_of, files):
    """While the first one writes; afterwards it goes on."""
    files.calls(2)
    provider = simulator(faults=[Fault("stall", seconds=0.5)])
    client = client_of(provider)
    first = threading.Thread(target=run_batch, args=(client, files.input, files.output))
    first.start()
    try:
        while not provider.counters.requests:
            threading.Event().wait(0.005)
        with pytest.raises(OutputError, match="is being written by another batch"):
            run_batch(client, files.input, files.output)
    finally:
        first.join()
    assert run_batch(client, files.input, files.output).skipped == 2


def test_a_full_disk_leaves_whole_lines_and_says_so(simulator, client_of, files, monkeypatch):
    """What was cut is taken back, and the next run does the rest."""
    files.calls(20)
    client = client_of(simulator(), max_concurrency=1)
    write, room = os.write, [3000]

    def scarce(fd, data):
        if len(data) < 400:
            return write(fd, data)  # somebody else's
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        done = write(fd, data[: room[0]])
        room[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr("ratelimited_llm.batch.output.os.write", scarce)
        with pytest.raises(OSError, match="No space left"):
            run_batch(client, files.input, files.output)
    assert files.output.read_bytes().endswith(b"\n")
    kept = len(files.rows())
    assert 0 < kept < 20
    assert run_batch(client, files.input, files.output).skipped == kept
    assert len(files.answered()) == len(set(files.answered())) == 20


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_max_time_stops_and_the_rest_is_done_later(simulator, client_of, files):
    """What is in flight then is still written."""
    files.calls(20)
    provider = simulator(rpm=60, latency=0.05)
    result = run_batch(client_of(provider, rpm=60, burst=2), files.input, files.output, max_time=0.3)
    assert result.stopped == "time"
    assert result.answered == len(files.rows()) >= 1
    assert result.answered + result.unfinished == result.total


def test_a_cost_cap_stops_and_writes_no_row(simulator, client_of, files, monkeypatch):
    """Calls that were not made are simply not done."""
    files.calls(10)
    client = client_of(simulator(), max_concurrency=1)
    send = run.Calls.send

    def capped(self, line):
        if line.number > 4:
            raise CostLimitReached(1.0, 0.9, 0.2)
        return send(self, line)

    monkeypatch.setattr(run.Calls, "send", capped)
    result = run_batch(client, files.input, files.output)
    assert result.stopped == "cost"
    assert "max_cost is $1, $0.9 are spent" in result.reason
    assert result.failed == 0
    assert result.answered + result.unfinished == 5
    assert not files.errors.exists()


def test_a_wrong_key_stops_after_some_calls_with_the_providers_error(simulator, client_of, files):
    """A million refusals tell no more than the first."""
    files.calls(200)
    provider = simulator(faults=[Fault(status=401, message="Incorrect API key")])
    with pytest.raises(openai.AuthenticationError):
        run_batch(client_of(provider, max_concurrency=2), files.input, files.output)
    assert provider.counters.requests <= run.HOPELESS + 3
    assert len(files.rows(files.errors)) == run.HOPELESS


def test_cancelling_the_clients_calls_ends_the_batch(simulator, client_of, files):
    """From another thread; nothing is written for what was not sent."""
    files.calls(10)
    provider = simulator(latency=0.1)
    client = client_of(provider, rpm=60, burst=1)
    timer = threading.Timer(0.3, client.cancel)
    timer.start()
    result = run_batch(client, files.input, files.output)
    timer.join()
    assert result.stopped == "cancelled"
    assert result.answered == len(files.rows())


def test_an_interrupt_writes_what_is_in_flight_and_says_how_to_go_on(simulator, client_of, files):
    """It is a KeyboardInterrupt that carries the result."""
    files.calls(10)
    provider = simulator(latency=0.2)
    client = client_of(provider, max_concurrency=1)

    def interrupt():
        while not provider.counters.requests:
            threading.Event().wait(0.005)
        signal.raise_signal(signal.SIGINT)

    timer = threading.Thread(target=interrupt)
    timer.start()
    with pytest.raises(BatchInterrupted, match="the same call again does the rest") as caught:
        run_batch(client, files.input, files.output)
    timer.join()
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.result.answered == len(files.rows()) >= 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_client_whose_queue_is_small_takes_part(simulator, client_of, files):
    """Its caps are waited for, whichever way it says that it is full."""
    for on_full in ("raise", "block"):
        files.calls(30)
        client = client_of(simulator(), max_queue=3, on_full=on_full)
        assert run_batch(client, files.input, files.folder / on_full).answered == 30


def test_blocking_and_disabled_clients_take_part(simulator, client_of, files, monkeypatch):
    """In blocking mode calls are queued all the same; switched off, one goes after the other."""
    files.calls(5)
    provider = simulator()
    assert run_batch(client_of(provider, mode="blocking"), files.input, files.output).answered == 5
    monkeypatch.setenv("RATELIMITED_LLM_DISABLE", "1")
    assert run_batch(client_of(provider), files.input, files.folder / "x").answered == 5


def test_file_objects_take_all_rows(simulator, client_of, files):
    """Answers and errors in one, of bytes or of text."""
    rows = b"nope\n" + json.dumps(call(1, "ä")).encode()
    for target in (io.BytesIO(), io.StringIO()):
        result = run_batch(client_of(simulator(answer="echo")), io.BytesIO(rows), target)
        assert (result.answered, result.bad, result.path) == (1, 1, None)
        value = target.getvalue()
        assert len((value if isinstance(value, bytes) else value.encode()).splitlines()) == 2


def test_a_dry_run_counts_and_touches_nothing(simulator, client_of, files):
    """No request, no file."""
    files.write(call(1), b"nope", call(3))
    provider = simulator()
    result = run_batch(client_of(provider), files.input, files.output, dry_run=True)
    assert (result.total, result.bad, result.unfinished, result.answered) == (3, 1, 2, 0)
    assert provider.counters.requests == 0
    assert not files.output.exists()


def test_another_packages_client_is_refused(files):
    """With what is needed."""
    with openai.OpenAI(api_key="k") as client, pytest.raises(TypeError, match="needs a client of this package"):
        run_batch(client, files.input, files.output)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_max_time_must_be_a_time(simulator, client_of, files, value):
    """None is for no bound."""
    with pytest.raises(ValueError, match="max_time must be"):
        run_batch(client_of(simulator()), files.input, files.output, max_time=value)
