"""What both dump protocols share: where the memory comes from, and how a dump lies on the collector's disk."""
