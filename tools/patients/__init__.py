"""Synthetic patients, and defects in their files."""
