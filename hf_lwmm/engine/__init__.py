"""From a plan to files: the streamed merge."""
