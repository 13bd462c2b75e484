"""From a file to voxels on a grid."""
