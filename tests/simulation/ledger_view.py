"""The ledger as the checker reads it for itself after each commit."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from holdfast.rollout import State


class Rollout(NamedTuple):
    """Where one rollout is."""

    state: State
    step: int
    challenger: str
    champion: str | None
    step_started_at_us: int
    policy: str


class Evidence(NamedTuple):
    """One metric of one rollout. `step_units` and `latency_bound_us` are from within its state."""

    rollout: int
    metric: str
    challenger_units: int
    log_e: float
    log_bound: float
    challenger_total: float
    champion_units: int
    champion_total: float
    step_units: int
    latency_bound_us: float | None

    @property
    def counts(self) -> tuple[float, ...]:
        """Units of the challenger, how many of them bad, and the same of the champion."""
        return self.challenger_units, self.challenger_total, self.champion_units, self.champion_total


@dataclass(frozen=True)
class Requested:
    """What a policy requests before a rollout moves on."""

    shares_ppm: tuple[int, ...]
    units_per_step: int
    min_step_duration_us: int
    latency_requests: int
    """0 when no latency is judged."""
    observed: bool

    @property
    def window_units(self) -> int:
        """How many units close a window."""
        return max(20, min(200, self.units_per_step))

    @property
    def metrics(self) -> tuple[str, ...]:
        """What every unit of the simulation is evidence of."""
        return ("errors", "latency") if self.latency_requests else ("errors",)


@lru_cache(maxsize=64)
def requested_by(policy: str) -> Requested:
    """What the policy requests that the ledger keeps as JSON."""
    kept = json.loads(policy)
    return Requested(
        shares_ppm=tuple(round(percent * 10_000) for percent in kept["steps"]),
        units_per_step=kept["units_per_step"],
        min_step_duration_us=round(kept["min_step_duration"] * 1e6),
        latency_requests=kept["latency_requests"] if kept["latency_quantile"] else 0,
        observed=kept["bake"] > 0,
    )


@dataclass(frozen=True)
class Seen:
    """The ledger after one commit."""

    lease: tuple[str, int, int]
    rollouts: dict[int, Rollout]
    plan: tuple[Any, ...] | None
    probes: tuple[tuple[Any, ...], ...]
    evidence: dict[tuple[int, str], Evidence]
    collected: dict[str, tuple[int, int]]
    """By server how many records were collected, and how many requests they were reported to hold."""
    observed: frozenset[int]
    """Promotions whose watch is not over."""
    windows: dict[tuple[int, int, int], int]
    """By rollout, minute and share how many units an open window has."""

    @property
    def fenced(self) -> tuple[Any, ...]:
        """What only the holder of the lease may write, besides rollouts."""
        return self.evidence, self.windows, self.collected, self.probes


def look(database: sqlite3.Connection) -> Seen:
    """Read it all."""
    ask = database.execute
    lease = ask("SELECT holder, epoch, duration_us, renewed_at_us FROM leases").fetchone() or ("", 0, 0, 0)
    plan = ask(
        "SELECT plan_id, champion, challenger, share_ppm, rollout_id, previous, fallback FROM traffic_plans "
        "ORDER BY plan_id DESC LIMIT 1"
    ).fetchone()
    rows = ask(
        "SELECT rollout_id, state, step, challenger, champion, step_started_at_us, policy_json FROM rollouts"
    )
    evidence = ask(
        "SELECT rollout_id, metric, challenger_units, log_e, log_bound, challenger_total, champion_units, champion_total, "
        "step_units, latency_bound_us "
        "FROM rollout_evidence ORDER BY 1, 2"
    )
    segments = ask("SELECT server, collected_bytes, predictions FROM log_positions ORDER BY 1")
    observed = ask("SELECT rollout_id FROM pushes WHERE outcome = 'open' AND bake_until_us IS NOT NULL")
    return Seen(
        lease=lease,
        rollouts={number: Rollout(State(state), *more) for number, state, *more in rows},
        plan=plan,
        probes=tuple(ask("SELECT server, plan_id, observed_version, verdict FROM probes")),
        evidence={(row[0], row[1]): Evidence(*row) for row in evidence},
        collected={server: (records, requests) for server, records, requests in segments},
        observed=frozenset(number for (number,) in observed),
        windows={
            (number, minute, share): units
            for number, minute, share, units in ask(
                "SELECT rollout_id, minute_start_us, share_ppm, units FROM evidence_windows"
            )
        },
    )
