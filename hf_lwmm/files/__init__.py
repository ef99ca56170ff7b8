"""Files on this machine: atomic writing, and reading by position."""
