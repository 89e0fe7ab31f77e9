"""How often headers are read: each when a limit is near or unknown, a fiftieth of a second's worth when it is far."""

from ratelimited_llm.core.feedback import Reading
from ratelimited_llm.core.header_sampler import FRESH, HeaderSampler


def test_headers_that_tell_nothing_or_of_a_near_limit_are_followed_by_the_next():
    for told in ((), (Reading("rpm", 100.0, 49.0),), (Reading("rpm", 100.0, 90.0), Reading("tpm", 1_000.0, 400.0)),
                 (Reading("rpm", None, 90.0),), (Reading("rpm", 100.0, None),)):  # fmt: skip
        sampler = HeaderSampler()
        assert sampler.due(0.0)
        sampler.read(told, 0.0)
        assert sampler.due(0.0)


def test_far_from_every_limit_one_reading_stands_for_a_moment():
    sampler = HeaderSampler()
    sampler.read((Reading("rpm", 100.0, 90.0), Reading("tpm", 1_000.0, 700.0)), 5.0)
    assert not sampler.due(5.0 + FRESH / 2)
    assert sampler.due(5.0 + FRESH)
