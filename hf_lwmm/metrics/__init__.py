"""Scores from counts: images give counts that add up, their sums give scores, and resamples give intervals."""
