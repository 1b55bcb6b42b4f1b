"""Does it speak the endpoint's language? It must understand those who call already: inputs, outputs and contract (R94)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.evolution.compatibility import Boundary, Change, Compatibility, Evolution, worst
from holdfast.contract.evolution.diff import compare
from holdfast.errors import InputError
from holdfast.qualify.load_report import TensorType, Trial
from holdfast.qualify.result import GateResult, judged
from holdfast.records import Verdict

GATE: Final = "signature"

NUMBER: Final = "tensor(double)"
WORD: Final = "tensor(string)"
INSTANT: Final = "tensor(int64)"

PROBABILITY: Final = TensorType("probability", "tensor(float)", 1)
"""The one output of every version."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What an endpoint takes and gives: the contract of its callers, and the kind of tensor of every input that it can
    fill."""

    contract: Contract
    inputs: Mapping[str, str]
    output: TensorType = PROBABILITY


def endpoint_signature(contract: Contract, aggregates: Iterable[str]) -> Signature:
    """The signature of an endpoint that takes rows of `contract` and fills in the named aggregates itself."""
    return Signature(contract, _inputs(contract) | dict.fromkeys(aggregates, NUMBER))


def signature(trial: Trial, endpoint: Signature, *, accepted: bool = False) -> GateResult:
    """Pass when the file understands the endpoint's callers, and takes and gives exactly what the endpoint does.

    Parameters
    ----------
    accepted
        Whether a person took upon himself that callers who do not follow the change of contract will be refused.

    A version may use fewer inputs than the endpoint takes: callers notice nothing. It may not use one that
    the endpoint cannot fill, or use one as another type, and its output must be the endpoint's in name, type
    and rank.

    A version may be made for a contract that evolved from the endpoint's (R92, R93). Where callers and models go on as
    they are, it passes and the changes are told. Where callers have to follow first, the verdict is inconclusive until
    somebody accepts it. Where the change breaks callers or what the model learnt, the verdict is fail, and final: the
    contract is inside the file, so no later judgement of the same file could end otherwise.
    """
    if not trial.outputs or trial.metadata is None:
        return judged(GATE, Verdict.INCONCLUSIVE, "not judged, because the file was not opened")
    made_for, own = _made_for(trial.metadata, endpoint.contract)
    if own is None:
        told = f"made for contract {made_for[:8]}, which its file does not hold; the endpoint's is {endpoint.contract.hash[:8]}"
        return judged(GATE, Verdict.FAIL, told, observed=1.0, bound=0.0)
    evolution = compare(endpoint.contract, own)
    differences = [*_broken(made_for, evolution, endpoint), *_tensors(trial, endpoint, own)]
    follow = [
        change for change in evolution.changes if change.at(Boundary.CALLERS) is Compatibility.EXPAND_CONTRACT
    ]
    waits = Verdict.INCONCLUSIVE if follow and not accepted else Verdict.PASS
    verdict = Verdict.FAIL if differences else waits
    explanation = "; ".join(differences) or _fits(trial, evolution, endpoint, follow, accepted)
    return judged(GATE, verdict, explanation, observed=float(len(differences)), bound=0.0)


def _made_for(metadata: Mapping[str, object], callers: Contract) -> tuple[str, Contract | None]:
    """The hash of the contract that a file was made for, and that contract; None when the file does not hold it."""
    made_for = str(metadata.get("contract_hash"))
    if made_for == callers.hash:
        return made_for, callers
    try:
        own = Contract.from_json(str(metadata.get("contract_json")))
    except InputError:
        return made_for, None
    return made_for, own if own.hash == made_for else None


def _broken(made_for: str, evolution: Evolution, endpoint: Signature) -> Iterator[str]:
    borders = (Boundary.CALLERS, Boundary.MODELS)
    broken = [
        change for change in evolution.changes if worst(map(change.at, borders)) is Compatibility.BREAKING
    ]
    if broken:
        yield (
            f"made for contract {made_for[:8]}, the endpoint's is {endpoint.contract.hash[:8]}, and what changed breaks who "
            f"calls it: {'; '.join(map(str, broken))}. A contract that breaks its callers is a new model: declare it under a "
            "name of its own (Model's name) and train that, or change it as told, or take the change back and train again"
        )


def _tensors(trial: Trial, endpoint: Signature, own: Contract) -> Iterator[str]:
    inputs = _inputs(own) | dict(endpoint.inputs)
    for given in trial.inputs:
        wanted = inputs.get(given.name)
        if wanted is None:
            yield f"the endpoint has no input {given.name!r}"
        elif (given.kind, given.rank) != (wanted, 1):
            yield f"the input {given} should be {TensorType(given.name, wanted, 1)}"
    if trial.outputs != (endpoint.output,):
        yield f"the outputs are {', '.join(map(str, trial.outputs))}; the endpoint's is {endpoint.output}"


def _fits(
    trial: Trial, evolution: Evolution, endpoint: Signature, follow: list[Change], accepted: bool
) -> str:
    if follow and not accepted:
        told = "; ".join(map(str, follow))
        return f"callers have to follow first: {told}; then: holdfast contract accept --model --reason WHY"
    fits = f"contract {endpoint.contract.hash[:8]}, {len(trial.inputs)} inputs and the output fit"
    told = "; ".join(map(str, evolution.changes))
    return f"{fits}; the contract evolved: {told}" if told else fits


def _inputs(contract: Contract) -> dict[str, str]:
    return {column.name: _kind(column) for column in contract.request_columns}


def _kind(column: Column) -> str:
    match column:
        case Number() | Integer() | Boolean() | Label():
            return NUMBER
        case Category() | Text():
            return WORD
        case Timestamp():
            return INSTANT
        case _:
            assert_never(column)
