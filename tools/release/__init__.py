"""Pack a bundle in the model zoo format and check the zip."""
