"""Which feature may read which column: the rules of a declaration that need no data.

`fit` and the declaration of a model both ask here, so what a check accepts can be fitted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from holdfast.contract import (
    Boolean,
    Category,
    Column,
    Constant,
    Contract,
    Integer,
    Label,
    Number,
    Reject,
    Timestamp,
)
from holdfast.contract.schema.missing import as_policy
from holdfast.features.declarations import (
    Feature,
    Hour,
    Impute,
    Month,
    Ordinal,
    Weekday,
    columns_read,
    feature_name,
)
from holdfast.formatting import with_article


def problems(features: Sequence[Feature], aggregates: Collection[str], contract: Contract) -> Iterator[str]:
    """Yield why `features` cannot be fitted on rows of `contract` with `aggregates`, the most basic first.

    >>> contract = Contract(Timestamp("at", tz="UTC"), Category("town"), key="at", event_time="at")
    >>> list(problems([Hour("town"), Ordinal("town"), Ordinal("at")], (), contract))
    ['Hour reads a Timestamp; town is a Category', 'Ordinal reads a Category; at is a Timestamp']
    """
    for feature in features:
        found = [
            problem
            for name in columns_read(feature)
            if (problem := _column_problem(feature, name, aggregates, contract))
        ]
        yield from found
        if isinstance(feature, Impute) and not found:
            yield from _impute_problems(feature, aggregates)
    names = [name for feature in features for name in _names(feature, aggregates, contract)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two features are named {name!r}; give one of them a name of its own"


def _column_problem(
    feature: Feature, name: str, aggregates: Collection[str], contract: Contract
) -> str | None:
    kind = type(feature).__name__
    if name in aggregates:
        wanted = _wanted(feature)
        return (
            None
            if Number in wanted
            else f"{kind} reads {with_article(_listed(wanted))}; {name} is an aggregate, which is a number"
        )
    if name not in contract.names:
        return f"{feature!r} reads {name!r}: neither in the contract nor an aggregate"
    column = contract.column(name)
    if isinstance(column, Label):
        return f"{feature!r} reads the label"
    wanted = _wanted(feature)
    return (
        None
        if isinstance(column, wanted)
        else f"{kind} reads {with_article(_listed(wanted))}; {name} is {with_article(type(column).__name__)}"
    )


def _wanted(feature: Feature) -> tuple[type[Column], ...]:
    """Return the types of columns that `feature` may read."""
    match feature:
        case Ordinal():
            return (Category,)
        case Hour() | Weekday() | Month():
            return (Timestamp,)
        case _:
            return (Number, Integer, Boolean)


def _impute_problems(feature: Impute, aggregates: Collection[str]) -> Iterator[str]:
    if feature.missing is None:
        if feature.column in aggregates:
            yield f"Impute({feature.column!r}): an aggregate has no policy of its own; set missing=, or use Passthrough"
        return
    policy = as_policy(feature.missing)
    if isinstance(policy, Constant) and isinstance(policy.value, str):
        yield f"Impute({feature.column!r}): {policy.value!r} is not a number"
    if isinstance(policy, Reject):
        yield f"Impute({feature.column!r}): only the contract can reject rows"


def _names(feature: Feature, aggregates: Collection[str], contract: Contract) -> Iterator[str]:
    """Yield the name of `feature`, and that of the flag of its missing values."""
    name = feature_name(feature)
    yield name
    if not isinstance(feature, (Impute, Ordinal)):
        return
    policy = feature.missing if isinstance(feature, Impute) else None
    if policy is None and feature.column in contract.names and feature.column not in aggregates:
        policy = contract.column(feature.column).missing
    if policy is not None:
        policy = as_policy(policy)
        if not isinstance(policy, Reject) and policy.flag:
            yield f"{name}_missing"


def _listed(kinds: tuple[type[Column], ...]) -> str:
    return ", ".join(kind.__name__ for kind in kinds).replace(", Boolean", " or Boolean")
