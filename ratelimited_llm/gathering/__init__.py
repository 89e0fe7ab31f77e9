"""Many answers at once.

gather  `gather` for futures, `map_calls` for blocking functions
crew    the threads of one map, as many as the limits can use
"""
