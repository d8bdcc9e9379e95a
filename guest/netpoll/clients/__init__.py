"""The applications on top of netpoll: what the slides' origins page lists (netconsole, syslog), and a test stream.

Each protocol is written without I/O: bytes in, events or bytes out, the clock an argument. `netpoll_send_udp` and
`rx_hook` are joined on by whoever owns the device.
"""
