"""The recipe file: what it records of a merge, which weights it speaks for, and older schemas."""
