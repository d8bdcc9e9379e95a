"""One module a target, each with a TARGET: what to run, seeds made by the stack's own encoders, tokens.

In: octets. Out: nothing. The one rule: a property that does not hold raises AssertionError; any other exception is
the code's own, and as much of a finding.
"""
