"""The command line: one file for each command."""

from .main import cli, main

__all__ = ["cli", "main"]
