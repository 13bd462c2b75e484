"""The library that the configs use at run time; every release contains it.

The packages follow the data in this order: cases, scans, checks, patches, maps, scores, pictures. `runs` has the
handlers, checkpoints and inferers of MONAI's engines.
"""
