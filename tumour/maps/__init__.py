"""Make label maps from probabilities."""
