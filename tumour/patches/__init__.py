"""From a case to a patch."""
