"""A few simulated worlds, and the mistakes that they must find (R135, P16, D6, D13).

The long run is `python tests/simulation/run.py --runs 10000 --seed 1`.
"""

from __future__ import annotations

import pytest
from ground import Ground
from planted import PLANTED
from run import STEPS, play_many, summary

from simulation import play

RUNS = 8
MANY = 80
"""Within so many seeds each planted mistake is found; most are within five."""


def test_no_history_is_rejected() -> None:
    """Two and three control loops that are stopped, killed, cut off and lied to by their clocks."""
    outcomes = play_many(range(1, 1 + RUNS), STEPS)
    assert [outcome.rejected for outcome in outcomes if outcome.rejected] == []
    told = summary(outcomes)
    assert isinstance(told["takeovers"], int)
    assert told["takeovers"] > RUNS // 2
    moves = told["moves"]
    assert isinstance(moves, dict)
    assert {"pending", "canary", "rolling_back", "rolled_back"} <= moves.keys()


def test_a_seed_plays_the_same_world_again() -> None:
    """What was rejected can be looked at again."""
    with Ground.lay() as ground:
        first, other, again = (play(ground, seed, STEPS) for seed in (5, 6, 5))
    assert first == again
    assert first.moves != other.moves


@pytest.mark.parametrize("mistake", sorted(PLANTED))
def test_a_planted_mistake_is_found(mistake: str) -> None:
    """Otherwise that no history is rejected would say nothing."""
    with PLANTED[mistake]():
        outcomes = play_many(range(1, 1 + MANY), STEPS, until_rejected=True)
    assert "seed " in outcomes[-1].rejected
    assert "run.py --seed" in outcomes[-1].rejected
