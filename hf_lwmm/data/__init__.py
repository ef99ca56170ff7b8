"""Label sets, protocols and data sets."""
