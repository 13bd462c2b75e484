"""From a folder to cases."""
