"""`python -m ratelimited_llm`: a script to run with its SDKs paced (see `runner`), or a command of the command line."""

import sys

from .runner import read_arguments, run

script = read_arguments(sys.argv[1:])
if script is None:
    from .cli import main

    raise SystemExit(main())
run(script)
