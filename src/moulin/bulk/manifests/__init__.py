"""Manifests of millions of rows, read without opening or looking at any recording.

`manifest.py` tells the forms apart; each has a file. All give a table of the schema RECORDINGS.
"""
