"""Red Hat's netdump, versions 4 and 5: a crashed machine that answers questions, and a collector that asks for its pages one by one.

Both ends are machines without I/O: datagrams and the time in, datagrams out.
"""
