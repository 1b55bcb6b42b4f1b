"""The active plan of a server: a plan with its loaded versions, as one immutable object."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.contract import Contract
from holdfast.contract.schema.source_metadata import column_conversion
from holdfast.features import OnlineTable
from holdfast.records import Arm, TrafficPlan
from holdfast.rollout.model.assignment import salt_of
from holdfast.serve.inference.loaded_model import LoadedVersion
from holdfast.serve.inference.request_schema import RequestSchema
from holdfast.serve.inference.shadow import ShadowTarget
from holdfast.serve.protocol.metadata import input_spec


def inputs_of(contract: Contract) -> dict[str, tuple[str, ...]]:
    """Return the datatypes of the inputs of a contract, by name."""
    return {column.name: input_spec(column).datatypes for column in contract.request_columns}


def merge_inputs(known: Iterable[Mapping[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    """Return the datatypes of all inputs in `known`, by name; one with several kinds of values has them all.

    >>> merge_inputs([{"a": ("BOOL",)}, {"a": ("FP64", "BOOL"), "b": ("BYTES",)}])
    {'a': ('BOOL', 'FP64'), 'b': ('BYTES',)}
    """
    merged: dict[str, tuple[str, ...]] = {}
    for inputs in known:
        for name, datatypes in inputs.items():
            merged[name] = tuple(dict.fromkeys((*merged.get(name, ()), *datatypes)))
    return merged


@dataclass(frozen=True, slots=True)
class ActivePlan:
    """What the server does now. It is immutable, so that switching to another plan is one assignment."""

    plan: TrafficPlan
    schema: RequestSchema
    """The champion's contract. It checks a request before its version is drawn."""
    schemas: Mapping[str, RequestSchema]
    """Each version's own contract; versions of one contract share it."""
    versions: Mapping[str, LoadedVersion]
    salt: bytes
    shadow_salt: bytes
    """Another salt, so that copied units are drawn independently of moved ones."""
    inputs: Mapping[str, tuple[str, ...]]
    """Datatypes by name of every input that a version of the model has or had. One that a version does not have is ignored."""
    specs: Mapping[str, Mapping[str, tuple[str, ...]]]
    """By version, the inputs that a request checked by its contract may have."""

    @classmethod
    def of(
        cls,
        plan: TrafficPlan,
        versions: Mapping[str, LoadedVersion],
        before: ActivePlan | None = None,
        inputs: Mapping[str, tuple[str, ...]] | None = None,
    ) -> ActivePlan:
        """Return `plan` with its loaded `versions`; the champion's contract checks the requests.

        What was compiled for `before` is used again, so that a rollback costs next to nothing.

        Parameters
        ----------
        plan, versions
            The plan, and its versions.
        before
            The active plan that it replaces, if any. Inputs that it knew stay known: callers may go on sending them.
        inputs
            Datatypes of inputs of other versions, by name.
        """
        salt = salt_of(plan.model, plan.rollout_id if plan.rollout_id is not None else 0)
        contracts = {version.contract.hash: version.contract for version in versions.values()}
        before_schemas = (
            {} if before is None else {each.contract.hash: each for each in before.schemas.values()}
        )
        compiled = {
            found: before_schemas.get(found) or RequestSchema(contract)
            for found, contract in contracts.items()
        }
        schemas = {name: compiled[version.contract.hash] for name, version in versions.items()}
        for one, other in itertools.permutations(compiled.values(), 2):
            # Computed here, so that no request waits for the definitions of units.
            for name, facts in one.differing_facts(other).items():
                column_conversion(one.contract.column(name), facts)
        copied = salt_of(f"shadow of {plan.model}", plan.rollout_id if plan.rollout_id is not None else 0)
        others = (
            inputs or {},
            {} if before is None else before.inputs,
            *(each.specs for each in compiled.values()),
        )
        known = merge_inputs(others)
        specs = {name: {**known, **schema.specs} for name, schema in schemas.items()}
        return cls(plan, schemas[plan.champion], schemas, versions, salt, copied, known, specs)

    @property
    def intended(self) -> str:
        """The version that new traffic is routed to."""
        return self.plan.intended

    def fallbacks(self, failed: str) -> list[str]:
        """Return the versions that answer for `failed`, in turn. Each answers only rows that its own contract accepts."""
        plan = self.plan
        order = [plan.champion] if failed == plan.challenger else []
        order += [version for version in (plan.previous, plan.fallback) if version is not None]
        return [version for version in dict.fromkeys(order) if version != failed]

    def shadow_target(self, table: OnlineTable) -> ShadowTarget | None:
        """Return the versions that the shadow compares; None without a shadow."""
        shadow, champion = self.plan.shadow, self.plan.champion
        if shadow is None:
            return None
        of, ours = self.schemas, self.versions
        return ShadowTarget(
            ours[shadow], ours[champion], of[shadow], of[champion], table, self.plan.rollout_id
        )

    def arm(self, version: str) -> Arm:
        """Return the arm on which `version` answers."""
        if version == self.plan.champion:
            return Arm.CHAMPION
        return Arm.CHALLENGER if version == self.plan.challenger else Arm.FALLBACK
