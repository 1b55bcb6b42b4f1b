"""Policies for missing values, and the constants that they become on a snapshot.

Missing is `None` (null), an absent key, and the empty string of a category or text. NaN is not missing: it is a
number that is not finite, which indicates a division by zero upstream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from holdfast.errors import InputError
from holdfast.field_types import checked

if TYPE_CHECKING:
    import polars as pl

Scalar: TypeAlias = float | int | str | bool


@dataclass(frozen=True, slots=True)
@checked()
class Reject:
    """Quarantine a row, and reject a request, without the value. The default."""


REJECT: Final = Reject()


@dataclass(frozen=True, slots=True)
@checked()
class Constant:
    """Replace a missing value with `value`, of the column's type.

    With `flag`, here and in the other policies, the model also gets a column that is 1 if the value was missing
    (R27).
    """

    value: Scalar
    flag: bool = False


@dataclass(frozen=True, slots=True)
@checked()
class Median:
    """Replace a missing value with the median of the training snapshot; numbers and integers only."""

    flag: bool = False


@dataclass(frozen=True, slots=True)
@checked()
class Mean:
    """Replace a missing value with the mean of the training snapshot; numbers and integers only."""

    flag: bool = False


@dataclass(frozen=True, slots=True)
@checked()
class Keep:
    """Keep a missing value: NaN or the empty category, for a model that can train on it."""

    flag: bool = False


Missing: TypeAlias = Reject | Constant | Median | Mean | Keep

SHORTHAND: Final[dict[str, Missing]] = {
    "reject": REJECT,
    "median": Median(),
    "mean": Mean(),
    "keep": Keep(),
}
"""Names of policies; the reference page is generated from them."""


def as_policy(missing: Missing | str) -> Missing:
    """Return the policy that a shorthand names, or the given policy. Raises `InputError` HF104 for an unknown word.

    >>> as_policy("median")
    Median(flag=False)
    """
    if not isinstance(missing, str):
        return missing
    found = SHORTHAND.get(missing)
    if found is None:
        raise InputError(
            "HF104", f"{missing!r} is not a missing policy: use {', '.join(SHORTHAND)} or Constant(value)"
        )
    return found


_POLICIES: Final = {kind.__name__.lower(): kind for kind in (Reject, Constant, Median, Mean, Keep)}


def policy_json(policy: Missing) -> dict[str, Scalar]:
    """Return the policy as it is written in a contract's JSON."""
    return {"policy": type(policy).__name__.lower(), **asdict(policy)}


def policy_from_json(value: Mapping[str, Any]) -> Missing:
    """Return the policy that `policy_json` wrote. Raises `InputError` HF108 for an unknown policy."""
    facts = dict(value)
    kind = _POLICIES.get(name := facts.pop("policy"))
    if kind is None:
        raise InputError("HF108", f"{name!r} is not a missing policy of this Holdfast")
    policy: Missing = kind(**facts)
    return policy


def fill_values(policies: Mapping[str, Missing], frame: pl.DataFrame) -> dict[str, Scalar]:
    """Return the constant that replaces missing values, for each column whose policy has one.

    Parameters
    ----------
    policies
        The policy of each column, by name.
    frame
        The valid rows of the training snapshot, and no later rows (R26).

    Returns
    -------
    One value per column: the declared constant, or the median or mean of the finite values. Columns with
    `Reject` or `Keep` are absent.

    Raises
    ------
    InputError
        HF401 if a median or mean is needed and no row has a value.
    """
    return {
        name: policy.value if isinstance(policy, Constant) else _fit_constant(frame[name], policy)
        for name, policy in policies.items()
        if not isinstance(policy, (Reject, Keep))
    }


def _fit_constant(values: pl.Series, policy: Median | Mean) -> float:
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
