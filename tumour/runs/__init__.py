"""Handlers, checkpoints, inferers and records for MONAI's engines."""
