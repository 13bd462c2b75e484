"""From label maps to numbers."""
