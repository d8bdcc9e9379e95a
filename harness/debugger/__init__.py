"""Symbols for gdb out of what a kernel image has itself: names from kallsyms, call frames from its ORC tables.

    vmlinux + kallsyms -> orc (unwind tables) -> cfi (.debug_frame) -> symbols (an ELF file that gdb loads)

Distributions ship debugging symbols as packages of nearly a gigabyte. A backtrace needs none of that: the kernel carries what it
unwinds its own oopses with. Types and lines are what such a file does not have.
"""
