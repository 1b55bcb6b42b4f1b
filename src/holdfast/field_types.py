"""Check the fields of a declaration by their annotations: a wrong type is refused where it is written, not where it is used."""

from __future__ import annotations

import builtins
import math
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import timedelta
from enum import Enum
from functools import lru_cache
from importlib import import_module
from inspect import get_annotations
from numbers import Integral, Real
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from holdfast.errors import InputError

Declared = TypeVar("Declared", bound=type)

_LONGEST_VALUE: Final = 60
_NAMES: Final[Mapping[Any, str]] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "None",
}


def checked(*judged: str) -> Callable[[Declared], Declared]:
    """Return a decorator, below `@dataclass`, that checks the fields of a new object before its own `__post_init__`.

    Fields in `judged` are left to that. Raises `InputError` HF113 that names the class, the field, what it is and what was
    given. A member of an enum may be given by its value, a tuple as any other collection, and a tuple of one declaration as
    that declaration. A duration is judged where it is read.
    """

    def decorate(declared: Declared) -> Declared:
        own = getattr(declared, "__post_init__", None)

        def check(self: Any) -> None:
            check_fields(self, judged)
            if own is not None:
                own(self)
            _check_numbers(self)

        declared.__post_init__ = check  # type: ignore[attr-defined]  # dataclass looks it up
        return declared

    return decorate


def check_fields(declared: Any, judged: Sequence[str] = ()) -> None:
    """Check the fields of a declaration that has an `__init__` of its own; see `checked`."""
    kind: Any = type(declared)
    for name, hint in _hints(kind).items():
        if name in judged:
            continue
        value = getattr(declared, name)
        found = _converted(value, hint)
        # A text that cannot be written as UTF-8 has neither JSON nor a hash.
        if not _is_of(found, hint) or (isinstance(found, str) and not is_unicode(found)):
            shown = repr(value)
            if len(shown) > _LONGEST_VALUE:
                shown = f"{shown[:_LONGEST_VALUE]}..."
            own_name = getattr(declared, "name", None)
            subject = (
                f"{kind.__name__} {own_name!r}" if own_name and isinstance(own_name, str) else kind.__name__
            )
            what = f"{subject}: {name} is {_named(hint)}, not {shown}"
            raise InputError("HF113", what, state="nothing was done")
        if found is not value:
            object.__setattr__(declared, name, found)


def _check_numbers(declared: Any) -> None:
    """Refuse a number that is none, where the declaration itself has no narrower bounds."""
    kind: Any = type(declared)
    for name in _hints(kind):
        value = getattr(declared, name)
        if isinstance(value, float) and math.isnan(value):
            raise InputError(
                "HF113", f"{kind.__name__}: {name} is a number, not nan", state="nothing was done"
            )


class _Names(dict[str, Any]):
    """The names that the annotations of a module may use, those of `TYPE_CHECKING` among them."""

    def __init__(self, module: str) -> None:
        super().__init__(vars(sys.modules[module]))

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)  # found there
        public = import_module("holdfast")
        return getattr(public, name) if name in public.__all__ else Any


@lru_cache(maxsize=256)
def _hints(declared: Any) -> dict[str, Any]:
    """Return the annotation of each field that is given to `declared`."""
    found: dict[str, Any] = {}
    for field in fields(declared):
        if not field.init:
            continue
        home = next(each for each in declared.__mro__ if field.name in get_annotations(each))
        written: object = field.type
        # Our own source, and its names alone.
        if isinstance(written, str):
            written = eval(written, {}, _Names(home.__module__))  # noqa: S307
        found[field.name] = written
    return found


def _converted(value: Any, hint: Any) -> Any:
    """Return `value` as the enum or the tuple that `hint` means, if it is another notation of one; else as it is."""
    for each in _choices(hint):
        if isinstance(each, type) and issubclass(each, Enum) and isinstance(value, str):
            return next((member for member in each if member.value == value), value)
        if get_origin(each) is tuple and not isinstance(value, (str, bytes, Mapping, tuple)):
            if isinstance(value, Iterable):
                return tuple(value)
            element = get_args(each)[0]
            if get_args(each)[1:] == (...,) and is_dataclass(value) and _is_of(value, element):
                return (value,)
    return value


def _is_of(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar) or getattr(hint, "_is_protocol", False):
        return True
    if origin in (Union, types.UnionType):
        return timedelta in arguments or any(_is_of(value, each) for each in arguments)
    if origin is Literal:
        return any(value is each or (type(value) is type(each) and value == each) for each in arguments)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, tuple) and _are_of(value, arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _is_of(key, arguments[0]) and _is_of(each, arguments[1]) for key, each in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, (Sequence, Collection)):
        return (
            isinstance(value, origin)
            and not isinstance(value, (str, bytes))
            and all(_is_of(each, arguments[0]) for each in value)
        )
    return not isinstance(hint, type) or isinstance(value, hint)


def is_unicode(text: str) -> bool:
    r"""Return True if `text` can be written as UTF-8; a lone surrogate cannot.

    >>> is_unicode("flight \U0001f6eb"), is_unicode("\ud83d")
    (True, False)
    """
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_of(values: tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if hints[1:] == (...,):
        return all(_is_of(each, hints[0]) for each in values)
    return len(values) == len(hints) and all(_is_of(*each) for each in zip(values, hints, strict=True))


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _named(hint: Any) -> str:
    """Return what a value of `hint` is, as the end of "it is ...".

    >>> _named(int | None), _named(tuple[str, ...]), _named(Literal["first", "latest"])
    ('a whole number or None', 'a tuple, each a text', "'first' or 'latest'")
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_named, arguments)))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple and arguments[1:] != (...,):
        return f"a tuple of {len(arguments)}, {' and '.join(map(_named, arguments))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a dictionary from {_named(arguments[0])} to {_named(arguments[1])}"
    if isinstance(origin, type):
        return f"a {'tuple' if origin is tuple else 'list'}, each {_named(arguments[0])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(repr(str(member.value)) for member in hint)
    if hint in _NAMES:
        return _NAMES[hint]
    name = getattr(hint, "__name__", str(hint))
    if name == "timedelta":
        return "a duration"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
