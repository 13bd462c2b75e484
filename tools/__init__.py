"""The workshop: commands that only a checkout needs. Nothing here travels in a release."""
