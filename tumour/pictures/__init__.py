"""From label maps to pictures."""
