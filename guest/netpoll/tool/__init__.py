"""The commands of `python -m guest.netpoll`: arguments, the session that they share, and a file for each."""
