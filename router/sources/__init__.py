"""Sources that are fetched from: the partner's API as it answers, one file each. What is made of the answers is elsewhere.

``budget`` has what is shared by all that call with one token.
"""
