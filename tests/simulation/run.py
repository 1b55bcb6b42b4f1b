"""Play control loops, servers, people and a bad world from seeds, and reject every history that breaks a rule.

python -m tests.simulation.run --runs 10000 --seed 1
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext

from benchmarks.command import Command
from tests.simulation.initial_ledger import Ground
from tests.simulation.planted_faults import PLANTED
from tests.simulation.simulation import Outcome, play

STEPS = 120


def play_many(seeds: range, steps: int, *, loud: bool = False, until_rejected: bool = False) -> list[Outcome]:
    """The outcome of each seed, one after the other on one ledger."""
    with Ground.lay() as ground:
        return play_on(ground, seeds, steps, loud=loud, until_rejected=until_rejected)


def play_on(
    ground: Ground, seeds: range, steps: int, *, loud: bool = False, until_rejected: bool = False
) -> list[Outcome]:
    """The same on a ledger that is there already."""
    outcomes = []
    for seed in seeds:
        outcome = play(ground, seed, steps)
        outcomes.append(outcome)
        if outcome.rejected:
            sys.stderr.write(f"REJECTED {outcome.rejected}\n")
        if loud:
            sys.stderr.write("\n".join(outcome.moves) + "\n")
        if outcome.rejected and until_rejected:
            break
    return outcomes


def summary(outcomes: list[Outcome]) -> dict[str, object]:
    """Counts over all runs."""
    moves = Counter(move.split()[4] for outcome in outcomes for move in outcome.moves)
    return {
        "runs": len(outcomes),
        "rejected": sum(bool(outcome.rejected) for outcome in outcomes),
        "takeovers": sum(outcome.takeovers for outcome in outcomes),
        "kills": sum(outcome.kills for outcome in outcomes),
        "disconnections": sum(outcome.disconnections for outcome in outcomes),
        "moves": dict(sorted(moves.items())),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.simulation.run", __doc__)
    command.size("--runs", 200, 2, help="worlds")
    command.option("--seed", type=int, default=1)
    command.option("--steps", type=int, default=STEPS)
    command.option("--processes", type=int, default=1)
    command.option("--planted", choices=sorted(PLANTED), help="with this mistake in the code")
    command.option("-v", "--verbose", action="store_true")
    options = command.parse(arguments)
    begun = time.monotonic()
    last = options.seed + options.runs
    parts = [range(options.seed + at, last, options.processes) for at in range(options.processes)]
    if options.processes == 1:
        with PLANTED[options.planted]() if options.planted else nullcontext():
            outcomes = play_many(
                parts[0], options.steps, loud=options.verbose, until_rejected=bool(options.planted)
            )
    else:
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            found = pool.starmap(play_many, [(part, options.steps) for part in parts])
        outcomes = [outcome for part in found for outcome in part]
    reported = summary(outcomes) | {"seed": options.seed, "steps": options.steps}
    reported["seconds"] = round(time.monotonic() - begun, 1)
    return command.finish(reported, passed=not reported["rejected"])


if __name__ == "__main__":
    sys.exit(main())
