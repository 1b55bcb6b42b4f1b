"""The laws of a feed source: what a load relies on to load a delivery once, whole, and in bounded memory and time."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from holdfast.contract import Contract
from holdfast.feeds import content_digest
from holdfast.store.sources import Source, parse
from holdfast.testing.law import Law, require, require_refusal

_SECRET: Final = re.compile(r"//[^/@\s]*:[^/@\s]+@|password|secret", re.IGNORECASE)


def source_laws(
    name: str,
    contract: Contract,
    open_delivery: Callable[[int], Source],
    open_other: Callable[[], Source],
    open_missing: Callable[[], Source],
) -> list[Law]:
    """Return the laws of a feed source.

    Parameters
    ----------
    name
        Name of the source, for the ids and messages of a test run.
    contract
        Contract of the delivery, every row of which it accepts.
    open_delivery
        Opens the delivery, with the given limit in bytes. It is opened several times, and is the same every time.
    open_other
        Opens a delivery of other content.
    open_missing
        Opens a delivery that does not exist.
    """
    laws: dict[str, Callable[[], None]] = {
        "the same delivery has the same digest": partial(_has_one_digest, open_delivery),
        "another content has another digest": partial(_distinguishes_contents, open_delivery, open_other),
        "its pieces can be read again": partial(_is_readable_again, open_delivery),
        "its name holds no secret": partial(_names_no_secret, open_delivery),
        "it has rows, and the same every time": partial(_has_rows, open_delivery, contract),
        "another process can have it": partial(_is_picklable, open_delivery, contract),
        "a delivery beyond the limit is refused": partial(_is_bounded, open_delivery),
        "a delivery that does not exist is refused": partial(_refuses_missing, open_missing),
    }
    return [Law(name, law, check) for law, check in laws.items()]


_ENOUGH: Final = 1 << 30
Open = Callable[[int], Source]


def _digest(source: Source) -> str:
    return content_digest(source.pieces())


def _has_one_digest(open_delivery: Open) -> None:
    first, second = _digest(open_delivery(_ENOUGH)), _digest(open_delivery(_ENOUGH))
    require(first == second, f"it was opened twice, with the digests {first[:12]} and {second[:12]}")


def _distinguishes_contents(open_delivery: Open, open_other: Callable[[], Source]) -> None:
    require(_digest(open_delivery(_ENOUGH)) != _digest(open_other()), "two contents have the same digest")


def _is_readable_again(open_delivery: Open) -> None:
    source = open_delivery(_ENOUGH)
    first, second = list(source.pieces()), list(source.pieces())
    require(any(len(piece) for piece in first), "it has no bytes to digest")
    require(first == second, "its pieces are others when they are read a second time")


def _names_no_secret(open_delivery: Open) -> None:
    name = open_delivery(_ENOUGH).name
    require(name.strip() and "\n" not in name, f"its name is {name!r}")
    require(not _SECRET.search(name), f"its name {name!r} is kept in the ledger, and holds a secret")


def _has_rows(open_delivery: Open, contract: Contract) -> None:
    one, other = (parse(open_delivery(_ENOUGH), contract).frame for _ in range(2))
    require(len(one) > 0, "it has no rows")
    missing = [each.name for each in contract.columns if each.name not in one.columns]
    require(not missing, f"its rows lack the columns {missing}")
    require(one.equals(other), "its rows are others when it is opened a second time")


def _is_picklable(open_delivery: Open, contract: Contract) -> None:
    source = open_delivery(_ENOUGH)
    try:
        back: Source = pickle.loads(pickle.dumps(source))  # noqa: S301  # it was made two lines above
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise AssertionError(f"it cannot be pickled: {error}") from error
    require(_digest(back) == _digest(source), "a pickled copy has another digest")
    require(
        parse(back, contract).frame.equals(parse(source, contract).frame), "a pickled copy has other rows"
    )


def _is_bounded(open_delivery: Open) -> None:
    require_refusal("a delivery beyond the limit of 8 bytes", partial(open_delivery, 8), "HF201")


def _refuses_missing(open_missing: Callable[[], Source]) -> None:
    require_refusal("a delivery that does not exist", open_missing, "HF201", "HF209")
