"""One call of a client, from the SDK's `request()` to its answer, for threads and tasks alike.

sdk_call                its arguments, and one attempt to send it
sdk_options             what the SDK's options say: whether the answer is wanted raw, how long it may take
queued_call             the call in the queue: what it costs, how it is queued, how it fares
client_job              what the jobs of such calls have in common
call_job                the job of a call that has a future
call_turn, async_turn   the job of a call that its own caller sends: a thread, or a task
sync_async              one course of events for a thread that blocks and a task that awaits
attempt                 what the SDK's hooks see of an attempt
streams, stream_end     answers that are read while they come, and what happens at their end
journaled, replay       answers out of a journal
snapshot                the body as it was when it was submitted
transport               the HTTP client's connections
model_builds            what a fork finds of the SDK's models
"""

from . import model_builds  # noqa: F401 - what it does, it does by being imported
