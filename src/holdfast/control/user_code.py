"""Call code of the user: the model file and its learners. Whatever it raises is its own error, never the end of a command."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, ParamSpec, TypeVar

from holdfast.errors import HoldfastError

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST: Final = 2_000
"""The most characters of an exception's own text that a message repeats."""


class UserCodeError(Exception):
    """The user's code raised an exception. The text names its type, its message, and the file and line that raised it."""

    def __init__(self, raised: BaseException) -> None:
        where = traceback.extract_tb(raised.__traceback__)[-1]
        # Of a syntax error the last line is Python's own, and its message names file and line.
        place = (
            "" if isinstance(raised, SyntaxError) else f" ({Path(where.filename).name}, line {where.lineno})"
        )
        super().__init__(f"{_described(raised)}{place}")


def call(function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Return what the user's `function` returns.

    Errors of ours and an interrupt by the operator pass. Anything else that the code raises becomes `UserCodeError`: also what
    is no `Exception`, such as `SystemExit`, which would end the command as if it had succeeded. What it prints goes to standard
    error, because the JSON of a command is alone on standard output.
    """
    with _observed_interrupts() as interrupts, redirect_stdout(sys.stderr):
        try:
            return function(*given, **named)
        except HoldfastError:
            raise
        except BaseException as error:
            if interrupts:
                raise KeyboardInterrupt from error
            raise UserCodeError(error) from error


@contextmanager
def _observed_interrupts() -> Iterator[list[int]]:
    """Yield the list of interrupts by signal: they differ from a `KeyboardInterrupt` that the code raises itself."""
    seen: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        seen.append(number)
        raise KeyboardInterrupt

    # Elsewhere a signal raises nothing in the code.
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield seen
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _described(raised: BaseException) -> str:
    name = type(raised).__name__
    try:
        return f"{name}: {raised}"[:_LONGEST]
    except BaseException:
        return name
