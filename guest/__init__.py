"""What runs inside the guest, and on the host under the same name. Standard library only."""
