"""Commands that only a checkout needs. A release contains nothing of this package."""
