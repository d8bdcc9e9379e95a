"""Poll-mode drivers: NICs whose registers and rings the stack drives itself, with no kernel driver in between."""
