"""For those who outgrow YAML: a guest, its NICs and its crash from Python, with the same evidence and the same verdicts.

`harness.api.fixtures` has pytest's fixtures, `harness.api.guest` what they hand out, `harness.api.session` the case's process. Rule: a step
is the same step as in a testcase, compiled and carried out by the same code; only who decides what comes next is different.
"""
