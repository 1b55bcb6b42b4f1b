"""One error for a delivery whose columns are not those of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.errors import InputError


def require_columns(
    names: Iterable[str], found: Iterable[str], faults: Mapping[str, list[str]], *, state: str
) -> None:
    """Raise `InputError` HF202 if columns are missing, unknown or otherwise faulty.

    Parameters
    ----------
    names
        The columns of the contract.
    found
        The columns of the delivery.
    faults
        Other faults: a description, such as "not text", and the columns that have it.
    state
        What was done with the rows so far.
    """
    names, found = list(names), list(found)
    known, delivered = set(names), set(found)
    problems = {
        "missing": [name for name in names if name not in delivered],
        "not in the contract": [name for name in found if name not in known],
        **faults,
    }
    parts = [f"{problem}: {', '.join(columns)}" for problem, columns in problems.items() if columns]
    if parts:
        raise InputError(
            "HF202",
            "; ".join(parts),
            state=state,
            next_command="correct the source, or the contract if the source is right",
        )
