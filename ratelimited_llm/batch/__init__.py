"""Batches: a file of calls in, a file of answers out, and the same command again does only what is missing."""

from __future__ import annotations

from .lines import BadLine, InputError, Line, read_lines
from .output import OutputError
from .result import BatchInterrupted, BatchResult
from .start import check_batch, run_batch

__all__ = [
    "BadLine",
    "BatchInterrupted",
    "BatchResult",
    "InputError",
    "Line",
    "OutputError",
    "check_batch",
    "read_lines",
    "run_batch",
]
