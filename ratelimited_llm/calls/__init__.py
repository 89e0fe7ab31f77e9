"""One call of a client, from the SDK's `request()` to its answer, for threads and tasks alike.

queued_call                 what it costs, and one attempt at it
call_job                    on its way to a future
call_turn, async_turn       sent by its own caller: a thread, or a task
waits                       what it waits for, as values
attempt                     what the SDK's hooks see of an attempt
streams                     open answers
journaled, replay           answers out of a journal
snapshot                    the body as it was when it was submitted
transport                   the HTTP client's connections
"""
