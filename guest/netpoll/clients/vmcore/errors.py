"""What can be wrong with a vmcore, by what its reader can do about it.

VmcoreError          ValueError
  NotReadable        this file is no ELF vmcore of x86-64, or a damaged one: get another
  NotInDump          the file is good, but does not hold these bytes: ask for others
"""

from __future__ import annotations


class VmcoreError(ValueError):
    """Anything that is wrong with a vmcore or with what was asked of it."""


class NotReadable(VmcoreError):
    """The file is not what this package reads; the message says what it is, and what to do."""


class NotInDump(VmcoreError):
    """No such memory: excluded by a filter, cut off, mapped nowhere, or not there in the first place."""
