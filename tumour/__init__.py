"""The run-time library that the configs name: what runs, and what a release carries.

The path of the data in its order: cases, scans, checks, patches, maps, scores, pictures; runs drives it.
"""
