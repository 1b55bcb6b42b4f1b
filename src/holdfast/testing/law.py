"""A law: one promise of a kind of part, bound to the part that has to keep it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.errors import InputError, UnavailableError


@dataclass(frozen=True, slots=True)
class Law:
    """One promise, and the part that has to keep it. Call it to check the promise.

    Parameters
    ----------
    part
        Name of the part, for the ids and messages of a test run.
    name
        Name of the law.
    check
        Raises `AssertionError` when the part breaks the law.

    >>> def is_even() -> None:
    ...     assert 3 % 2 == 0, "3 is odd"
    >>> Law("three", "even", is_even)()
    Traceback (most recent call last):
    ...
    AssertionError: three breaks the law "even": 3 is odd
    """

    part: str
    name: str
    check: Callable[[], None]

    def __str__(self) -> str:
        """Return the id of the law in a test run."""
        return f"{self.part}-{self.name}".replace(" ", "-")

    def __call__(self) -> None:
        """Check the promise. Raise `AssertionError`, with the part and the law in its message, when it is broken."""
        try:
            self.check()
        except AssertionError as error:
            raise AssertionError(f'{self.part} breaks the law "{self.name}": {error}') from error


def require_refusal(what: str, call: Callable[[], object], *codes: str) -> None:
    """Raise `AssertionError` unless `call` refuses `what` with one of `codes`."""
    try:
        call()
    except (InputError, UnavailableError) as error:
        require(error.code in codes, f"{what} is refused with {error.code}, not {' or '.join(codes)}")
    else:
        raise AssertionError(f"{what} is accepted")


def require(holds: object, message: str) -> None:
    """Raise `AssertionError` with `message` unless `holds`; unlike `assert`, also under ``python -O``."""
    if not holds:
        raise AssertionError(message)
