"""A rollout that gathers evidence, in a ledger without anything else."""

from __future__ import annotations

from sqlalchemy import insert

from holdfast.rollout import Canary, begin
from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.rollout import evidence, rollouts

MODEL = "m"
NOW = 1_700_000_000_000_000


def running_canary(store: Store, policy: Canary | None = None) -> int:
    """Add a rollout of `v2` against `v1` of the model "m", which gathers evidence; return its number."""
    policy = Canary() if policy is None else policy
    with store.ledger.write() as connection:
        connection.execute(insert(schema.table_versions).values(committed_at_us=NOW, reason="test"))
        connection.execute(
            insert(schema.snapshots).values(
                snapshot="s", table_version=1, contract_hash="c", created_at_us=NOW
            )
        )
        for number in (1, 2):
            connection.execute(
                insert(schema.versions).values(
                    version=f"v{number}",
                    model=MODEL,
                    number=number,
                    digest=str(number),
                    bytes=1,
                    snapshot="s",
                    contract_hash="c",
                    features_hash="f",
                    learner="l",
                    role="candidate",
                    state="qualified",
                    created_at_us=NOW,
                )
            )
        number = rollouts.insert_pending(
            connection,
            model=MODEL,
            challenger="v2",
            champion="v1",
            policy=policy.to_json(),
            reason="r",
            actor="a",
            now_us=NOW,
        )
        evidence.begin(connection, number, begin(policy, 0.005), now_us=NOW)
    return number
