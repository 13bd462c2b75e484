"""Attention blocks, networks and losses that MONAI lacks and that the configs of the bundles name."""
