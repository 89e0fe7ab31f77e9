"""The decisions, without their effects: who is next, when it may go, whether it goes again.

Two rules, which `tests/test_architecture.py` checks:

1. Nothing in here looks at a clock, takes a lock, starts a thread or does I/O. Time is an argument (`now`, seconds
   of any monotonic clock), and so is chance (a number in [0, 1) where jitter is wanted).
2. Nothing in here imports from outside `core` and `exceptions`.

So a thread, an asyncio task and a simulation in virtual time drive the very same objects.

dispatcher                     scheduler, budget and retries as the one machine that drivers drive
request, feedback              a call with its cost and its states; what an answer told
scheduler                      who is next: priority, then
fair_queue, size_classes         the tenant that has had least, and turns between small and large calls
queue_caps                     how many may wait
limiter                        when a call may go: all limits of one pool, made of
limits, mirrored_limits          what was configured, what was learned, and what part of it is ours
mirrors, meter, bucket           one limit under a charging rule; as answers tell it; as arithmetic
drift, calibrator                what others spend of it; what it gives when nobody tells
pause, ramp                      who may go at all after a refusal, and at first
claims, refusals                 how far a provider is believed; which limit refused, and for how long
running_sum                      what was charged and when, for comparisons with old snapshots
shared_pool                    one process's part in a pool that several share: it orders, books and owes
booking, booking_pool, booking_bucket  orders, and what they do to a pool in the store (`stores/book.lua` in Lua)
retry                          whether a call goes again, and after how long
estimate                       what a call will probably cost
outlook                        how soon waiting calls will go
header_sampler                 how often the headers of answers are read
checks                         numbers that people give, checked
"""
