"""What is known of a run: counted as it happens, and told as values.

ledger, call_records        what becomes of calls: counts, tokens, waits
spending, prices, cost_cap  money: what was spent, what tokens cost, and whether one more call may go under `max_cost`
status                      all of it as values, for users
survey                      makes them, from a ledger and the limits as they stand
chronicle, minute           the run in equal slices of time, and its last sixty seconds
facts, fleet                what a process reports to those who share its limits, and what all of them do together
health                      a score of 0 to 100
hints                       one hint to whoever reads each answer before the next call
"""
