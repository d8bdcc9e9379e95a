"""What can be wrong with a kernel image or a symbol table; the message says what to do."""

from __future__ import annotations


class SymbolsError(Exception):
    """No symbol file can be made of this."""
