"""Pages on a port of this machine."""
