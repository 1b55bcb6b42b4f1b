"""The one command. Each command is thin: it reads the arguments, calls one function of the layers below, and prints."""

from holdfast.cli.app import main

__all__ = ["main"]
