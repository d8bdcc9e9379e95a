"""Registers and descriptors of NICs, shared by drivers (guest.netpoll.drivers) and device models (harness.nic).

Rule: numbers and struct layouts with their documents' names, nothing that does anything; imports nothing of ours.
"""
