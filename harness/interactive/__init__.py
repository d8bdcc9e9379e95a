"""The terminal's side of `netpoll-harness shell`: keys in, screen out, events as lines. Nothing here knows a testbed."""
