"""Walk every order of aborts, restarts, refusals, plans, rollbacks and rollouts until no new state is found.

The search and the machine are those of `tests/support/abort_orders.py`; the suite walks short orders only. With three versions
(two models and a heuristic) a search ends within minutes. With four there are millions of states: hours with `--four-depth 0`.
`is_closed` is true if every search ended because no state was new.

    python -m tests.soak.abort_orders
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.command import Command
from tests.support.abort_orders import HEURISTIC, MODELS, Found, World, directory, search

THREE = MODELS[1:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, and print what was seen."""
    command = Command("tests.soak.abort_orders", __doc__)
    command.size("--three-depth", 0, 3, help="most operations in an order of three versions, 0 for no bound")
    command.size("--four-depth", 9, 3, help="most operations in an order of four versions, 0 for no bound")
    given = command.parse(arguments)
    searches = dict[str, Found]()
    for count, models, depth in (("three", THREE, given.three_depth), ("four", MODELS, given.four_depth)):
        for fits, unfit in (
            ("each fits", frozenset[str]()),
            ("the heuristic does not", frozenset({HEURISTIC})),
        ):
            name = f"{count} versions, {fits}"
            with directory() as where:
                world = World(where, unfit, models)
                searches[name] = search(
                    world, depth or None, report=lambda seen, name=name: print(name, seen, flush=True)
                )
    unbounded = [
        found
        for name, found in searches.items()
        if not (given.three_depth if name.startswith("three") else given.four_depth)
    ]
    figures = {
        "states": sum(each.states for each in searches.values()),
        "transitions": sum(each.transitions for each in searches.values()),
        "twins": sum(each.twins for each in searches.values()),
        "is_closed": all(each.is_closed for each in searches.values()),
        "searches": {
            name: {
                "states": each.states,
                "transitions": each.transitions,
                "depth": each.depth,
                "twins": each.twins,
                "closed": each.is_closed,
            }
            for name, each in searches.items()
        },
    }
    return command.finish(figures, passed=all(each.is_closed for each in unbounded))


if __name__ == "__main__":
    sys.exit(main())
