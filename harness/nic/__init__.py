"""Device models: what a NIC's registers do. `tg3` is a Broadcom BCM5787; `serve` gives one to a QEMU in a process of its own.

Rule: a model knows its bus (`bus.Bus`) and its wire (`bus.Wire`) as protocols only, so that it runs against a QEMU, a test, or a
driver of ours in one Python process.
"""
