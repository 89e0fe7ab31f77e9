"""Calls of any function, for executors: the job, what a failure means, and results that are kept."""
