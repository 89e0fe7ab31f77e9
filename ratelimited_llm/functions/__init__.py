"""Calls of any function, for executors and processors.

function_job      one call: what runs it, what all of them share, and what they report to have cost
error_outcomes    what an exception means for another try: refused by a limit, worth another try, or final
executor_journal  results that are kept for the next run
"""
