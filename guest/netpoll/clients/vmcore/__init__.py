"""Reading a crashed kernel's memory out of an ELF vmcore: /proc/vmcore, makedumpfile -E, QEMU's dump-guest-memory.

    source (pread) -> core (ELF headers, notes) -> memory (physical, virtual) -> registers by CPU

Every number in the file is untrusted: what does not fit is a VmcoreError that says where, never a crash and never memory
in proportion to what a header claims.
"""
