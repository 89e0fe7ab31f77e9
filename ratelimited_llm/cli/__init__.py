"""The command line: `ratelimited-llm demo | batch | estimate | journal | serve | sim | top | worker`, each a file here.

`pause | resume | limit | cancel | limits` are in `control`.

Exit codes: 0 done, 1 failed (some rows of it), 2 the command line makes no sense, 3 stopped by a cap, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__
from ..runner import read_arguments, run
from . import batch, control, demo, estimate, journal, serve, sim, top, worker

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code. `argv` is without the program's name; None for `sys.argv`."""
    if argv is None:
        script = read_arguments(sys.argv[1:])
        if script is not None:
            run(script)
            return 0
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return 2
    args = parser.parse_args(argv)
    try:
        code = args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return int(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ratelimited-llm",
        description="Every LLM call queued, kept inside the provider's rate limits, and retried by one authority.",
        epilog="A script instead of a command: ratelimited-llm [run] [--rpm N ...] (script.py | -m module) [args] "
        "runs it as it is, with its SDKs paced.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command_name", required=True, metavar="COMMAND")
    for command in (demo, batch, control, estimate, journal, serve, sim, top, worker):
        command.add_parser(commands)
    return parser
