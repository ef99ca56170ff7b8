"""Scores of networks on labelled images: predictions, their comparison with the labels, and a report."""
