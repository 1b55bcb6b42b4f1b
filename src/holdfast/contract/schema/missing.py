"""What a missing value means: the policies, and the constants that they become on a snapshot.

Missing is `None` (null), an absent key, and the empty string of a category or text. NaN is never missing:
it is a number that is not finite, and somebody upstream divided by zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, assert_never

from holdfast.errors import InputError

if TYPE_CHECKING:
    import polars as pl

Scalar: TypeAlias = float | int | str | bool


@dataclass(frozen=True, slots=True)
class Reject:
    """A row without the value is quarantined, a request without it is refused. The default."""


REJECT: Final = Reject()


@dataclass(frozen=True, slots=True)
class Constant:
    """The value is replaced by `value`, of the column's type.

    With `flag`, here and in the other policies, the model also learns that the value was missing (R27).
    """

    value: Scalar
    flag: bool = False


@dataclass(frozen=True, slots=True)
class Median:
    """The value is replaced by the median of the training snapshot; numbers and integers only."""

    flag: bool = False


@dataclass(frozen=True, slots=True)
class Mean:
    """The value is replaced by the mean of the training snapshot; numbers and integers only."""

    flag: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """A missing value stays missing: NaN or the empty category for a model that can learn from it."""

    flag: bool = False


Missing: TypeAlias = Reject | Constant | Median | Mean | Keep

SHORTHAND: Final[dict[str, Missing]] = {
    "reject": REJECT,
    "median": Median(),
    "mean": Mean(),
    "keep": Keep(),
}
"""The words that may stand for a policy; the reference page is generated from them."""


def as_policy(missing: Missing | str) -> Missing:
    """The policy that a shorthand names; a policy is returned as it is.

    >>> as_policy("median")
    Median(flag=False)
    """
    if not isinstance(missing, str):
        return missing
    found = SHORTHAND.get(missing)
    if found is None:
        raise InputError(
            "HF101", f"{missing!r} is not a missing policy: use {', '.join(SHORTHAND)} or Constant(value)"
        )
    return found


def policy_json(policy: Missing) -> dict[str, Scalar]:
    """The policy as it stands in a contract's JSON."""
    match policy:
        case Reject():
            return {"policy": "reject"}
        case Constant(value, flag):
            return {"policy": "constant", "value": value, "flag": flag}
        case Median(flag):
            return {"policy": "median", "flag": flag}
        case Mean(flag):
            return {"policy": "mean", "flag": flag}
        case Keep(flag):
            return {"policy": "keep", "flag": flag}
        case _:
            assert_never(policy)


def policy_from_json(value: dict[str, Any]) -> Missing:
    """The inverse of `policy_json`."""
    kind, flag = value["policy"], value.get("flag", False)
    match kind:
        case "reject":
            return Reject()
        case "constant":
            return Constant(value["value"], flag)
        case "median":
            return Median(flag)
        case "mean":
            return Mean(flag)
        case "keep":
            return Keep(flag)
        case _:
            raise InputError("HF101", f"{kind!r} is not a missing policy of this Holdfast")


def fill_values(policies: Mapping[str, Missing], frame: pl.DataFrame) -> dict[str, Scalar]:
    """The constant that stands in for a missing value of each column whose policy replaces one.

    Parameters
    ----------
    policies
        The policy of each column, by name.
    frame
        The valid rows of the training snapshot, never of anything later (R26).

    Returns
    -------
    One value a column: the declared constant, or the median or mean of the values that are there and
    finite. Columns with `Reject` or `Keep` are not in it.

    Raises
    ------
    InputError
        HF401 when a median or mean is asked for and no row has a value.
    """
    filled: dict[str, Scalar] = {}
    for name, policy in policies.items():
        match policy:
            case Constant(value):
                filled[name] = value
            case Median() | Mean():
                filled[name] = _centre(frame[name], policy)
            case Reject() | Keep():
                pass
            case _:
                assert_never(policy)
    return filled


def _centre(values: pl.Series, policy: Median | Mean) -> float:
    import polars as pl  # here, so that a server, which only declares and checks rows, starts without it

    numbers = values.drop_nulls().cast(pl.Float64)
    numbers = numbers.filter(numbers.is_finite())
    centre = numbers.median() if isinstance(policy, Median) else numbers.mean()
    if not isinstance(centre, float) or not math.isfinite(centre):
        raise InputError(
            "HF401",
            f"no row has a finite value of {values.name!r}, so it has no {type(policy).__name__.lower()}",
            state="nothing was fitted",
            next_command="train on a snapshot that has such rows, or declare Constant(value)",
        )
    return centre
