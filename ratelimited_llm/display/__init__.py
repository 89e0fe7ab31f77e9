"""What a person sees of a run: a line in the terminal, a panel in the notebook, a page afterwards.

Everything here reads values of `books.status` and changes nothing; nothing is imported before somebody has waited for a
while, or asks to see it. May import `books`.

line, number_text, answer_text   one line of a terminal, and how numbers and answers are written in little room
progress, pace, modes, screen    when that line is shown, and how a terminal is written to
notebook, waiting, panel         live displays in Jupyter: of a client, a future, a cell that waits; with
displays, ticker                   one display, and the thread that keeps all up to date
report, page, charts             one HTML file about a run
fleet                            everybody who shares a budget, for `ratelimited-llm top`
"""
