"""What is known of a run: counted as it happens, and told as values.

ledger, notes               what became of calls
chronicle, minute           the course of the run, and its last sixty seconds
status, survey              all of it as values
spending, prices, purse     money
facts, fleet, health        what a process tells others, and how well it does
hints                       what is said once to who reads answer by answer
"""
