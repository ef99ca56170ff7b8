"""The verbs of the package, a file each: what the command line and notebooks call."""
