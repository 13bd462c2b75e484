"""Attention blocks, the networks made of them, and losses: what MONAI lacks and the bundles name in their configs."""
