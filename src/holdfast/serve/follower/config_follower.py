"""Follow the serving config that the model's plans name, without a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable

from holdfast.errors import HoldfastError
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store import Store
from holdfast.store.models import serving_configs

_log = logging.getLogger(__name__)


class ConfigFollower:
    """Follows the serving config of one model. Until a plan names one, the server has the limits it was started with."""

    def __init__(self, model: str) -> None:
        self.limits: ConnectionLimits | None = None
        """The limits that a plan names; None if none does."""
        self.error = ""
        """Why the newest serving config is not used."""
        self._model = model
        self._apply: Callable[[ConnectionLimits], None] | None = None

    def on_change(self, apply: Callable[[ConnectionLimits], None]) -> None:
        """Call `apply` with each new serving config from now on, on the follower's thread."""
        self._apply = apply

    def start_from_copy(self, document: str) -> None:
        """Use the serving config of the local copy."""
        if document:
            self._use(document)

    def follow(self, store: Store) -> None:
        """Use the serving config of the newest plan that names one. One that cannot be read changes nothing."""
        with store.ledger.read() as connection:
            in_force = serving_configs.in_force(connection, self._model)
            document = serving_configs.document(connection, in_force[0][1]) if in_force else ""
        if document and (self.limits is None or document != self.limits.to_json()):
            self._use(document)

    def _use(self, document: str) -> None:
        try:
            limits = ConnectionLimits.from_json(document)
        except HoldfastError as error:
            if str(error) != self.error:
                _log.error("serving config rejected: %s", error)
            self.error = str(error)
            return
        if self._apply is not None:
            self._apply(limits)
        self.limits, self.error = limits, ""
