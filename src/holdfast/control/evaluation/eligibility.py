"""Which versions may not answer in another's place although they are clean: the file is damaged, or callers would break."""

from __future__ import annotations

from holdfast.contract.evolution.compatibility import Boundary, Compatibility, worst
from holdfast.contract.evolution.diff import compare
from holdfast.errors import IntegrityError, NotFoundError
from holdfast.store import Store
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.models.versions import VersionRow


def breaking_callers_of(connection: Transaction, store: Store, version: str) -> frozenset[str]:
    """Return the versions of the same model whose contract refuses or misreads what callers of `version` may send (R133).

    If the ledger has no copy of a contract, the result is empty; servers read it from the version's file and decide.
    """
    wanted = versions.get(store, version)
    known = contracts.find(connection, wanted.contract_hash)
    if known is None:
        return frozenset()
    breaking: dict[str, bool] = {wanted.contract_hash: False}
    rows = versions.of_model(store, wanted.model)
    for row in rows:
        if row.contract_hash not in breaking:
            other = contracts.find(connection, row.contract_hash)
            breaking[row.contract_hash] = other is not None and (
                worst(map(compare(known, other).at, (Boundary.CALLERS, Boundary.MODELS)))
                is Compatibility.BREAKING
            )
    return frozenset(row.version for row in rows if breaking[row.contract_hash])


def is_whole(store: Store, row: VersionRow) -> bool:
    """Whether the file of the version is there and is the one that was registered."""
    try:
        blobs.get(store, row.digest)
    except (IntegrityError, NotFoundError, OSError):
        return False
    return True
