"""From headers to a plan: alignment, knobs, tensor recipes, and the recipe that makes a merge again."""
