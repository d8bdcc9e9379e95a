"""netconsole: kernel messages over UDP. `message` the formats, `sender`, `receiver`, and `lines` for plain text.

Plain packets carry the console's text, extended ones a header with level, sequence number and time, and long extended
messages are cut into `ncfrag` fragments (drivers/net/netconsole.c, Documentation/networking/netconsole.rst).
"""
