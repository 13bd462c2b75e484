"""From the scanner and back: find, register and strip the scans of a patient; bring a label map to their grids."""
