"""Seeded defects: is whatever a case stands on really looked at? Each defect must turn a named check of a named case red.

    defects of the stack     guest.netpoll with one function broken, in a machine of this process (rig), playing a shipped testcase
    defects of a kernel      what a broken kernel, driver, bond or NIC would have left in the evidence of a real run (recorded)
    defects of the harness   the judge or an observer with one function broken, given evidence that is bad

In: nothing. Out: a table and a score. Rule: real code is broken where it lies, never a copy; without the defect the same case is as it must be.
"""
