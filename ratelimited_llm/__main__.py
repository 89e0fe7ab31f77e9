"""`python -m ratelimited_llm`: the command line."""

from .cli import main

raise SystemExit(main())
