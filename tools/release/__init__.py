"""Pack a bundle in the model zoo format, check the zip, export the network."""
