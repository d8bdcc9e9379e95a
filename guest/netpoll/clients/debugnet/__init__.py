"""FreeBSD's debugnet netdump: a crashed machine pushes its dump, a window at a time; the collector acknowledges each datagram.

Both ends are machines without I/O: datagrams and the time in, datagrams out.
"""
