"""With which limits this server runs: those that its model's plans ask for, followed without a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable

from holdfast.errors import HoldfastError
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store import Store
from holdfast.store.models import serving_configs

_log = logging.getLogger(__name__)


class Configured:
    """Follows the configuration of one model; until a plan names one, the server keeps what it was started with."""

    def __init__(self, model: str) -> None:
        self.limits: ConnectionLimits | None = None
        """What a plan asked for; None while none did."""
        self.trouble = ""
        self._model = model
        self._apply: Callable[[ConnectionLimits], None] | None = None

    def use(self, apply: Callable[[ConnectionLimits], None]) -> None:
        """Call `apply` with each new configuration, on the follower's thread, from now on."""
        self._apply = apply

    def start_from_copy(self, document: str) -> None:
        """Run with what the last run kept."""
        if document:
            self._take(document)

    def follow(self, store: Store) -> None:
        """Run with what the newest plan that names a configuration asks for. What cannot be read changes nothing."""
        with store.ledger.read() as connection:
            spells = serving_configs.in_force(connection, self._model)
            document = serving_configs.document(connection, spells[0][1]) if spells else ""
        if document and (self.limits is None or document != self.limits.to_json()):
            self._take(document)

    def _take(self, document: str) -> None:
        try:
            limits = ConnectionLimits.from_json(document)
        except HoldfastError as error:
            if str(error) != self.trouble:
                _log.error("serving config rejected: %s", error)
            self.trouble = str(error)
            return
        if self._apply is not None:
            self._apply(limits)
        self.limits, self.trouble = limits, ""
