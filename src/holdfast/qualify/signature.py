"""The gate `check_signature`: compare inputs, outputs and contract with those of the endpoint's callers (R94)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.evolution.compatibility import Boundary, Change, Compatibility, Evolution, worst
from holdfast.contract.evolution.diff import compare
from holdfast.errors import InputError
from holdfast.formatting import counted
from holdfast.qualify.load_test import LoadReport, TensorType
from holdfast.qualify.result import GateResult
from holdfast.records import Verdict

GATE: Final = "signature"

NUMBER: Final = "tensor(double)"
WORD: Final = "tensor(string)"
TIMESTAMP: Final = "tensor(int64)"

PROBABILITY: Final = TensorType("probability", "tensor(float)", 1)
"""The only output of every version."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of an endpoint: its callers' contract, and the tensor type of every input that it can fill."""

    contract: Contract
    inputs: Mapping[str, str]
    output: TensorType = PROBABILITY


def endpoint_signature(contract: Contract, aggregates: Iterable[str]) -> Signature:
    """Return the signature of an endpoint that takes rows of `contract` and fills the named aggregates itself."""
    return Signature(contract, _input_types(contract) | dict.fromkeys(aggregates, NUMBER))


def check_signature(report: LoadReport, endpoint: Signature, *, accepted: bool = False) -> GateResult:
    """Pass if the file serves the endpoint's callers, with exactly the endpoint's inputs and output.

    Parameters
    ----------
    report
        The report of the sandbox process.
    endpoint
        The signature of the endpoint that serves now.
    accepted
        True if an operator accepted that callers which do not follow the change of contract will be refused.

    A version may use fewer inputs than the endpoint takes; callers are unaffected. It may not use one that the
    endpoint cannot fill, or one of another type, and its output must have the endpoint's name, type and rank.

    A version may be made for a contract that evolved from the endpoint's (R92, R93). If callers and models are
    unaffected, it passes and the changes are reported. If callers have to follow first, the verdict is inconclusive
    until a person accepts it. If the change breaks callers or models, the verdict is fail, and final: the contract is
    inside the file, so every later evaluation of the file would give the same result.
    """
    if not report.outputs or report.metadata is None:
        return GateResult(GATE, Verdict.INCONCLUSIVE, "not evaluated: the file was not opened")
    made_for, own = _contract_of(report.metadata, endpoint.contract)
    if own is None:
        current = endpoint.contract.hash[:8]
        explanation = (
            f"made for contract {made_for[:8]}, which its file does not hold; the endpoint's is {current}"
        )
        return GateResult(GATE, Verdict.FAIL, explanation, observed=1.0, bound=0.0)
    evolution = compare(endpoint.contract, own)
    differences = [
        *_breaking_changes(made_for, evolution, endpoint),
        *_tensor_differences(report, endpoint, own),
    ]
    follow = [
        change for change in evolution.changes if change.at(Boundary.CALLERS) is Compatibility.EXPAND_CONTRACT
    ]
    waits = Verdict.INCONCLUSIVE if follow and not accepted else Verdict.PASS
    verdict = Verdict.FAIL if differences else waits
    explanation = "; ".join(differences) or _explain_fit(report, evolution, endpoint, follow, accepted)
    return GateResult(GATE, verdict, explanation, observed=float(len(differences)), bound=0.0)


def _contract_of(metadata: Mapping[str, object], callers: Contract) -> tuple[str, Contract | None]:
    """Return the hash of the contract that a file was made for, and that contract; None if the file does not hold it."""
    made_for = str(metadata.get("contract_hash"))
    if made_for == callers.hash:
        return made_for, callers
    try:
        own = Contract.from_json(str(metadata.get("contract_json")))
    except InputError:
        return made_for, None
    return made_for, own if own.hash == made_for else None


def _breaking_changes(made_for: str, evolution: Evolution, endpoint: Signature) -> Iterator[str]:
    boundaries = (Boundary.CALLERS, Boundary.MODELS)
    broken = [
        change for change in evolution.changes if worst(map(change.at, boundaries)) is Compatibility.BREAKING
    ]
    if broken:
        yield (
            f"made for contract {made_for[:8]}, the endpoint's is {endpoint.contract.hash[:8]}, and the change breaks its "
            f"callers: {'; '.join(map(str, broken))}. A contract that breaks its callers is a new model: declare it under "
            "another name (Model's name) and train that, or change it as described, or revert the change and train again"
        )


def _tensor_differences(report: LoadReport, endpoint: Signature, own: Contract) -> Iterator[str]:
    inputs = _input_types(own) | dict(endpoint.inputs)
    for found in report.inputs:
        wanted = inputs.get(found.name)
        if wanted is None:
            yield f"the endpoint has no input {found.name!r}"
        elif (found.kind, found.rank) != (wanted, 1):
            yield f"the input {found} should be {TensorType(found.name, wanted, 1)}"
    if report.outputs != (endpoint.output,):
        yield f"the outputs are {', '.join(map(str, report.outputs))}; the endpoint's is {endpoint.output}"


def _explain_fit(
    report: LoadReport, evolution: Evolution, endpoint: Signature, follow: list[Change], accepted: bool
) -> str:
    if follow and not accepted:
        needed = "; ".join(map(str, follow))
        return f"callers have to follow first: {needed}; then: holdfast contract accept --model --reason WHY"
    fits = f"contract {endpoint.contract.hash[:8]}, {counted(len(report.inputs), 'input')} and the output fit"
    changes = "; ".join(map(str, evolution.changes))
    return f"{fits}; the contract evolved: {changes}" if changes else fits


def _input_types(contract: Contract) -> dict[str, str]:
    return {column.name: _tensor_type(column) for column in contract.request_columns}


def _tensor_type(column: Column) -> str:
    match column:
        case Number() | Integer() | Boolean() | Label():
            return NUMBER
        case Category() | Text():
            return WORD
        case Timestamp():
            return TIMESTAMP
        case _:
            assert_never(column)
