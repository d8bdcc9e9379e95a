"""A dump's end on the host: the server in a process of its own, and what is found out about the file that it wrote.

serve      that process: `netdump-server`'s parts on a case's taps, with a wire that loses and swaps frames
server     the case's handle on it: started, killed, started anew on the same folder
vmcore     a file -> where each page of physical memory lies in it; ELF and kdump-compressed
compare    page by page against the RAM that QEMU wrote
opened     what makedumpfile and drgn, whom people use, find in it
"""
