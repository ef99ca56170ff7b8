"""From images to weights: layer weights tuned on images, BatchNorm re-estimation, Fisher and Gram measurements."""
