"""The command line: one verb a file. Nothing heavy is imported before a verb needs it."""

from moulin.cli.app import main

__all__ = ["main"]
