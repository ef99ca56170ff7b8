"""From headers to a plan: alignment, knobs, and where each element of the merged file comes from."""
