"""Find a champion that predicts the same as a version, because both were trained on the same rows.

A training with other held-out rows makes another version, also if its training rows are those of the champion. Its gates and
its rollout then compare a model with itself.
"""

from __future__ import annotations

from dataclasses import replace

from holdfast.errors import IntegrityError
from holdfast.formatting import counted
from holdfast.store import Store
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.models.versions import VersionRow
from holdfast.train.artifact import VersionMetadata, open_version, training_digest


def find_equal_champion(store: Store, model: str, version: str) -> tuple[str, str]:
    """Return the champion that predicts the same as `version`, and that in words; two empty texts if it does not.

    They are equal if declaration, seed, number of training rows, fitted features and graph are. Of a version whose file is
    damaged that is not known. Raises `NotFoundError` HF303 for an unknown version.
    """
    with store.ledger.read() as connection:
        row, champion = versions.get(connection, version), versions.champion(connection, model)
    if champion is None or champion.version == version or champion.role != row.role:
        return "", ""
    try:
        (about, digest), (_, other) = _read(store, row), _read(store, champion)
    except IntegrityError:
        return "", ""
    if digest != other:
        return "", ""
    return champion.version, (
        f"{version} has the same training rows as the champion {champion.version}, {counted(about.rows, 'row')}: "
        "their graphs are equal, so a comparison of them shows no difference"
    )


def _read(store: Store, row: VersionRow) -> tuple[VersionMetadata, str]:
    """Return the metadata of a version, and the digest of what decides its predictions."""
    graph, about = open_version(blobs.get(store.root, row.digest))
    return about, training_digest(graph, replace(about, trained_before_us=0, environment={}), "")
