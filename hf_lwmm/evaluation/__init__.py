"""Scores of networks on labelled images: what they predict, what of it is right, and a report of it."""
