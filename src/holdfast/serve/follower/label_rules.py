"""Follow the rules for labels: declared corrections, the secret of prediction ids, and the servers whose ids have no tag."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from holdfast.errors import IntegrityError
from holdfast.feedback import LabelRules
from holdfast.records import Corrections
from holdfast.serve.follower.local_copy import LocalCopy, LocalCopyWriter
from holdfast.serve.inference.data_plane import DataPlane
from holdfast.store import Store
from holdfast.store.db.ledger import Transaction
from holdfast.store.serving import label_rules

_log = logging.getLogger(__name__)


class LabelRulesFollower:
    """Keeps the rules of a data plane those of the ledger, and a copy on the server's disk.

    Parameters
    ----------
    plane
        The data plane.
    directory
        Holds the copy.
    writer
        Writes the copy.
    corrections
        Which of several labels of one prediction counts, as declared; None leaves it to the ledger.
    """

    def __init__(
        self, plane: DataPlane, directory: Path, writer: LocalCopyWriter, corrections: Corrections | None
    ) -> None:
        self.error = ""
        """Why the copy could not be read."""
        self._plane = plane
        self._directory = directory
        self._writer = writer
        self._corrections = corrections
        if corrections is not None:
            plane.use_label_rules(LabelRules(corrections))

    def start_from_copy(self) -> None:
        """Use the rules that the last run stored, with the corrections that are declared now."""
        try:
            found = label_rules.load(self._directory)
        except (IntegrityError, OSError) as error:
            self.error = str(error)
            _log.warning("labels are not verified until the ledger answers: %s", error)
            return
        if found is not None:
            corrections = self._corrections or found.corrections
            self._plane.use_label_rules(replace(found, corrections=corrections))

    def announce(self, connection: Transaction, root: Path, fresh: bytes, *, now_us: int) -> None:
        """Store what this process declares. A ledger without a secret gets the one that is kept here, else `fresh`.

        Raises as `label_rules.kept_secret` does.
        """
        if not label_rules.has_secret(connection):
            kept = self._plane.label_rules.secret or label_rules.kept_secret(root)
            label_rules.ensure_secret(connection, kept or fresh, now_us=now_us)
        if self._corrections is not None:
            label_rules.declare_corrections(connection, self._plane.model, self._corrections, now_us=now_us)

    def follow(self, store: Store) -> None:
        """Use the rules of the ledger, once it has a secret, and store them if they are new."""
        with store.ledger.read() as connection:
            found = label_rules.read(connection, self._plane.model)
        if not found.secret or (found == self._plane.label_rules and not self.error):
            return
        self._plane.use_label_rules(found)
        self.error = ""
        self._writer.submit("label rules", lambda copy: _save(copy, found))


def _save(copy: LocalCopy, rules: LabelRules) -> bool:
    label_rules.save(copy.directory, rules)
    return True
