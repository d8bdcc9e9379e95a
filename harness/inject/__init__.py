"""What is done to a running case from outside, beyond a single QMP command: when it is done, and how it is undone.

In: actions of a plan and what has been seen so far. Out: the moment, or the commands. Rule: an injection is evidence once it has taken
effect, never before; one whose moment never came leaves its `inject armed` behind, for the judge to call it not reached.
"""
