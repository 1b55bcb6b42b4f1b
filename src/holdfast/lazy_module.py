"""Import a large library when it is first used, and not with each module that names it.

A page or a supervisor imports modules of which it needs a record or a constant; Polars and PyArrow would take a third of its
memory for functions that it never calls.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class LazyModule:
    """Stands for the module `name`, which is imported when an attribute of it is first read.

    >>> math = LazyModule("math")
    >>> math.floor(1.5)
    1
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
