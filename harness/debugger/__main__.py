"""`python -m harness.debugger VMLINUX KALLSYMS FILE`: write a symbol file for gdb.

In: a kernel image, and /proc/kallsyms of a kernel that runs it unmoved. Out: FILE. The rule it keeps: exit code 2 and one line
where no such file can be made.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.debugger.errors import SymbolsError
from harness.debugger.symbols import symbol_file


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.debugger", description="Make a symbol file for gdb.")
    parser.add_argument("vmlinux", type=Path, metavar="VMLINUX")
    parser.add_argument("kallsyms", type=Path, metavar="KALLSYMS")
    parser.add_argument("file", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    try:
        made = symbol_file(arguments.vmlinux.read_bytes(), arguments.kallsyms.read_text().splitlines())
        arguments.file.write_bytes(made)
    except (SymbolsError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
