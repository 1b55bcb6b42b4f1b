"""A loaded version: its ONNX Runtime session, and the metadata of its file.

The verified bytes are the loaded bytes: nothing is read twice, nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from holdfast.contract import Contract
from holdfast.errors import IntegrityError
from holdfast.features import Aggregate, FittedFeatures, Input, OnlineTable, entity_key, tensors_from_rows
from holdfast.records import sha256_hex

_METADATA_KEY: Final = "holdfast"
_WARM_UP_ROWS: Final = (1, 16, 1)
Probabilities = npt.NDArray[np.float32]
_MUTABLE_ROW = dict[str, Any]


class _Metadata(msgspec.Struct, frozen=True):
    """The part of a version's metadata that serving needs; other fields are ignored."""

    model: str
    role: str
    contract_json: str
    contract_hash: str
    features_json: str
    features_hash: str
    snapshot: str
    learner: str


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version that can predict at once."""

    name: str
    digest: str
    created_at_us: int
    facts: _Metadata
    contract: Contract
    inputs: tuple[Input, ...]
    aggregates: tuple[Aggregate, ...]
    lookups: tuple[tuple[str, str, str, int], ...]
    """Of each aggregate: the column that it fills, its key, its entity's column, the greatest age in microseconds."""
    session: Any
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By category column, the words that the model has a code for, in order; every other word has one common code."""
    not_unseen: tuple[tuple[str, frozenset[str | None]], ...] = ()
    """The columns of `words`, with their words, the aliases of these, and what is missing."""

    def run(self, rows: Sequence[Mapping[str, object]]) -> Probabilities:
        """Return the probability of each row, shape (len(rows),). What ONNX Runtime raises goes to the caller."""
        found: Probabilities = self.session.run(["probability"], tensors_from_rows(self.inputs, rows))[0]
        return found

    def fill_aggregates(self, rows: Sequence[_MUTABLE_ROW], at_us: Sequence[int], table: OnlineTable) -> None:
        """Put the aggregates into each row as known at its event time; NaN if unknown."""
        for name, key, by, age in self.lookups:
            for row, event_time_us in zip(rows, at_us, strict=True):
                row[name] = table.lookup(key, entity_key(row.get(by)), event_time_us, age)


def load(name: str, digest: str, data: bytes, *, created_at_us: int) -> LoadedVersion:
    """Verify `data` against its digest, load it and run it once, so that the first request finds it warm.

    Parameters
    ----------
    name
        The version.
    digest
        SHA-256 of its file, hexadecimal.
    data
        The file.
    created_at_us
        When it was registered, microseconds since 1970 UTC.

    Raises
    ------
    IntegrityError
        HF301 when the bytes do not have the digest, are no version, or cannot be run.
    """
    if sha256_hex(data) != digest:
        raise _unusable(name, "its bytes do not have the digest that the ledger names")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = (
        1  # requests are answered on one thread; a pool would only fight it for cores
    )
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        described = session.get_modelmeta().custom_metadata_map.get(_METADATA_KEY, "")
        facts = msgspec.json.decode(described, type=_Metadata)
    except Exception as error:  # ONNX Runtime derives its exceptions from Exception, each alone
        raise _unusable(name, f"it cannot be loaded: {type(error).__name__}") from error
    try:
        contract = Contract.from_json(facts.contract_json)
        fitted = FittedFeatures.from_json(facts.features_json)
    except Exception as error:  # a file of another release may hold anything where its declarations should be
        raise _unusable(name, f"what it declares cannot be read: {type(error).__name__}") from error
    lookups = tuple((each.name, each.key, each.by, each.window_us) for each in fitted.aggregates)
    version = LoadedVersion(
        name,
        digest,
        created_at_us,
        facts,
        contract,
        fitted.inputs,
        fitted.aggregates,
        lookups,
        session,
        fitted.words,
        tuple((column, _not_unseen(contract, column, words)) for column, words in fitted.words.items()),
    )
    try:
        for count in _WARM_UP_ROWS:
            version.run(empty_rows(count))
    except Exception as error:
        raise _unusable(name, f"it cannot be run: {type(error).__name__}") from error
    return version


def _not_unseen(contract: Contract, column: str, words: Sequence[str]) -> frozenset[str | None]:
    aliases = contract.aliases.get(column, {})
    return frozenset((*words, *(alias for alias, word in aliases.items() if word in words), None, ""))


def invalid_reason(found: Probabilities, rows: int) -> str:
    """Return why `found` is no prediction for so many rows, as a kind of failure; empty if it is one.

    >>> invalid_reason(np.array([0.5, np.nan], np.float32), 2), invalid_reason(np.array([0.5], np.float32), 1)
    ('not_finite', '')
    """
    if found.shape != (rows,):
        return "wrong_shape"
    # A NaN compares false with everything, so this refuses it too.
    if not (found.min() >= 0.0 and found.max() <= 1.0):
        return "not_a_probability" if np.isfinite(found).all() else "not_finite"
    return ""


def empty_rows(count: int) -> list[_MUTABLE_ROW]:
    """Return rows in which everything is missing: for warming up, and for a probe without inputs."""
    return [{} for _ in range(count)]


def _unusable(name: str, why: str) -> IntegrityError:
    return IntegrityError("HF301", f"version {name}: {why}", state="the server goes on with its current plan")
