"""Scores of predictions: per-image counts that add up, data set scores from their sums, intervals from their spread."""
