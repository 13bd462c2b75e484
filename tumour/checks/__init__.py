"""Check cases, labels and data sets for errors."""
