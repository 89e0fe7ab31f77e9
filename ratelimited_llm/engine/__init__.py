"""The thread that drives the core, and the threads that send: calls from the inbox to their end.

engine              who drives, who waits for what, and the worker's thread
steps               what happens to a call, one step at a time
jobs                what an attempt brings; the job of a call that has a future
turn_jobs           the jobs of calls that their own callers send
inbox               the PriorityQueue, and the only sleep
senders             threads that send, as many as there is to send
admission           the caps of a queue: who submits waits for room, or is refused
queue_positions     where a waiting call stands
light_future        a Future for a hundred bytes
future_state        its state, its locks, and the steps that change it
unread_failures     failures that nobody looks at are logged
gates               plain locks that threads sleep at
submission_site     where in your own code a call was submitted
plain_answers       threads whose calls wait and return plain objects
lifecycle           Ctrl-C, the end of the process, forks
"""
