"""What is known of a run: counted as it happens, and told as values.

ledger, call_records        what becomes of calls: counts, tokens, waits
spending, bills, prices     money: what was spent, its sums by model, and what tokens cost
cost_cap                    whether one more call may go under `max_cost`
status                      all of it as values, for users
survey                      makes them, from a ledger and the limits as they stand
chronicle, minute           the run in equal slices of time, and its last sixty seconds
facts, fleet                what a process reports to those who share its limits, and what all of them do together
health                      a score of 0 to 100
hints                       one hint to whoever reads each answer before the next call
"""
