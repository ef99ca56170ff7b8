"""Look at images to decide layer weights, to re-estimate BatchNorm's statistics, and to measure models."""
