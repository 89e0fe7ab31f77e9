"""The thread that drives the core, and the threads that send: calls from the inbox to their end.

engine          who drives, who waits for what
steps           what happens to a call, one step at a time
jobs            the two ways to wait: a future, or a turn of one's own
inbox           the PriorityQueue, and the only sleep
senders         threads, as many as there is to send
room            the caps of a queue
places          where a waiting call stands
light_future    a Future for a hundred bytes
submission_site where in your own code a call was submitted
plain_answers   threads whose calls wait and return plain objects
lifecycle       Ctrl-C, the end of the process, forks
"""
