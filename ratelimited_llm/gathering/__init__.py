"""Many answers at once.

gather   `gather`: the answers of many futures
mapping  `map_calls`: a blocking function on many items
crew     the threads of one map, as many as the limits can use
items    what the two have in common: what may be given, and what becomes of a failure
"""
