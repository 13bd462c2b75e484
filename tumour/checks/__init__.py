"""What is wrong with a case, a label or a data set."""
