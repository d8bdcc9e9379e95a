"""A GDB remote stub for a kernel that is dead: registers of each CPU and memory, out of a vmcore, over netpoll.

    datagram -> server (rx_hook) -> session (one debugger) -> link (acks, resends, duplicates) -> target (what is asked)
             <-                                            <-                                  <-

The protocol: the GDB manual's appendix "GDB Remote Serial Protocol". The slides' third user of netpoll was kgdb over ethernet;
a live one needs a kernel that calls it. This one needs the memory of a kernel that crashed, so nothing can be run or changed.
"""
