"""Read files as voxels on a grid."""
