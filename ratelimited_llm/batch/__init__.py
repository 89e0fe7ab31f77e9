"""Batches: a file of calls in, a file of answers out, and the same command again does only what is missing.

start                             `run_batch` and `check_batch`: arguments and files
run, sending, interrupts          the loop: lines in, calls out, rows written, Ctrl-C
source, lines, shapes, template   the input: read ahead, line by line, in five shapes, with a prompt
files, output, rows, result       the output, what earlier runs left in it, and what became of the batch
ids                               a million ids in little memory
estimate, estimated               what a batch will take and cost, before any money is spent
account, load, forecast           whose limits and prices that counts with, and how long it lasts in virtual time
"""

from __future__ import annotations

from .lines import BadLine, InputError, Line, read_lines
from .output import OutputError
from .result import BatchInterrupted, BatchResult
from .start import check_batch, run_batch

__all__ = [
    "BadLine", "BatchInterrupted", "BatchResult", "InputError", "Line", "OutputError", "check_batch", "read_lines",
    "run_batch",
]  # fmt: skip
