"""The decisions, without their effects: who is next, when it may go, whether it goes again.

Two rules, which `tests/test_architecture.py` checks:

1. Nothing in here looks at a clock, takes a lock, starts a thread or does I/O. Time is an argument (`now`, seconds
   of any monotonic clock), and so is chance (a number in [0, 1) where jitter is wanted).
2. Nothing in here imports from outside `core` and `exceptions`.

So a thread, an asyncio task and a simulation in virtual time drive the very same objects.
"""
