"""What MONAI's engines need around them: handlers, checkpoints, inferers, records."""
