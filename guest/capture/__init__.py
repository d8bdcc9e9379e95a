"""The capture kernel's only program: it is its first process, brings the NIC up, and runs a client of netpoll over it.

    system       mounts, modules, the end of the machine: system calls, since there is no other program
    network      the interface with a MAC, or a bond as the crashed kernel had one -> up, with carrier
    arguments    the words after `--` on the capture kernel's command line
    __main__     one after the other, each told on the console with the time since that kernel began

In: the kernel's command line, as `guest.kexec` was given it. Out: what the client sends; lines on the console that begin with `capture:`. Rule:
whatever goes wrong is said on the console, and nothing waits without end for something that may never come.
"""
