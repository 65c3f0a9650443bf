"""What the outbox forgets and what is kept of it elsewhere: ``retention`` by age, with ``pruning``'s SQL; ``forgetting``
people, with ``erasure``'s, whom ``suppression`` keeps out; ``backup`` copies all of it and puts it back.
"""
