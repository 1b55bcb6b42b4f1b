"""Walk every order of aborts, restarts, refusals, plans, rollbacks and rollouts of four versions until no new state is found.

The search and the machine are those of `tests/support/abort_orders.py`; the suite walks short orders only.

    python -m tests.soak.abort_orders
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.command import Command
from tests.support.abort_orders import HEURISTIC, Found, World, directory, search


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, and print what was seen."""
    command = Command("tests.soak.abort_orders", __doc__)
    command.size(
        "--depth", 1000, 3, help="operations at most; a search ends before when no new state is found"
    )
    given = command.parse(arguments)
    found = dict[str, Found]()
    for name, unfit in (("each version fits", ()), ("the heuristic does not fit", (HEURISTIC,))):
        with directory() as where:
            found[name] = search(
                World(where, frozenset(unfit)), given.depth, report=lambda seen: print(seen, flush=True)
            )
    is_closed = all(each.is_closed for each in found.values())
    figures = {
        "states": sum(each.states for each in found.values()),
        "transitions": sum(each.transitions for each in found.values()),
        "twins": sum(each.twins for each in found.values()),
        "is_closed": is_closed,
        "searches": {
            name: {
                "states": each.states,
                "transitions": each.transitions,
                "depth": each.depth,
                "twins": each.twins,
            }
            for name, each in found.items()
        },
    }
    return command.finish(figures, passed=is_closed or given.depth < 1000)


if __name__ == "__main__":
    sys.exit(main())
