"""What the tests of queues have in common: a worker in a thread, jobs, and short ways to ask."""

from __future__ import annotations

import threading
import uuid

from ratelimited_llm.queues import QueueAddress, Stop, engine_for
from ratelimited_llm.queues.answer_store import AnswerStore
from ratelimited_llm.queues.redis_server import ServerClock, connect
from ratelimited_llm.queues.service import JobService

KNOWN = {"rpm": 100_000, "tpm": 1e9}  # limits that nothing here reaches, so that no first burst is ramped


def ask(client, text="hello", **options):
    """One chat call; the simulator's answer="echo" answers with its text."""
    options.setdefault("model", "m")
    return client.chat.completions.create(messages=[{"role": "user", "content": text}], **options)


def text_of(answer):
    """What a chat call was answered with; waits."""
    return answer.choices[0].message.content


def job(**changes):
    """A job as it travels."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    made = {
        "v": 1, "id": uuid.uuid4().hex, "submitter": uuid.uuid4().hex, "method": "POST", "provider": "openai",
        "path": "/chat/completions", "body": body,
    }  # fmt: skip
    return {**made, **changes}


class Worker:
    """A worker of a queue in a thread: what `ratelimited-llm worker` does, without its process."""

    def __init__(self, address, clients, *, concurrency=16, heartbeat=2.0, patience=20.0, drain=5.0):
        self.address = QueueAddress.parse(address)
        self.clients = {client._provider_name: client for client in clients}
        self.engine = engine_for(self.address)
        self._client = connect(self.address)
        self.answers = AnswerStore(self._client, self.address)
        self.service = JobService(
            self.clients, self.answers, ServerClock(self._client), heartbeat=heartbeat, patience=patience
        )
        self._stop = Stop(drain)
        self._thread = threading.Thread(
            target=self.engine.consume,
            args=(self.service,),
            kwargs={"concurrency": concurrency, "heartbeat": heartbeat, "stop": self._stop},
        )

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        if self._thread.is_alive():
            self._stop.ask()
            self._thread.join(10)
            assert not self._thread.is_alive()
        for client in self.clients.values():
            client.cancel()
            client.close()
        self.engine.close()
        self._client.close()


class Notes:
    """A handler that notes what it is given; `then` says what becomes of it (None: it stays open)."""

    def __init__(self, then=lambda ticket: ticket.done()):
        self.jobs = []
        self.held = []
        self.then = then
        self._changed = threading.Condition()

    def take(self, tickets):
        with self._changed:
            for ticket in tickets:
                self.jobs.append((ticket.rank, ticket.job))
                self.held.append(ticket)
                if self.then is not None:
                    self.held.remove(ticket)
                    self.then(ticket)
            self._changed.notify_all()

    def tick(self):
        pass

    def give_back(self):
        for ticket in self.held:
            ticket.put_back()
        self.held = []

    def wait_for(self, number, timeout=12.0):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.jobs) >= number, timeout), self.jobs
