"""Synthetic patients, and defects in their files: `python -m tools.patients --output DIR`."""
