"""Many merges scored on one data set."""
