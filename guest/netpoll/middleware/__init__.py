"""Net devices around a net device: faults, and a trace of the frames. A caller cannot tell them from a driver."""
