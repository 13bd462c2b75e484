"""Find the cases in a folder."""
