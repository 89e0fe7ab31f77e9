"""What a person sees of a run: a line in the terminal, a panel in the notebook, a page afterwards.

Everything here reads values of `ratelimited_llm.status` and changes nothing. `words` and `line` are pure; `progress`
knows when a terminal may be written to. Nothing is imported before somebody has waited for a while.
"""
