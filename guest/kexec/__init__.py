"""kexec_load(2) for a crash: a capture kernel is put beside the running one, and takes over when that panics.

    machine    what the running kernel says of its memory -> Machine
    elfcore    Machine -> the ELF header through which /proc/vmcore shows the crashed kernel's memory
    boot       Machine, where things lie, a command line -> the boot protocol's zero page
    layout     a vmlinux -> the segments of an image, each with its place in the crash region
    load       segments -> the kernel

In: an *unpacked* vmlinux and an initramfs. Out: an image that starts running at once after a panic: nothing is decompressed, and no digest
of some 80 MB is computed first, as kexec-tools' purgatory does (the region is read-only for the crashed kernel's CPUs). Rule: the standard
library only; no program of the guest is needed.
"""
