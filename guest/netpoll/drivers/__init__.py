"""Drivers: each a NetDevice over one kind of hardware or kernel interface. Import the one that you need."""
