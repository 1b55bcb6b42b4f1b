"""The inference server: Open Inference Protocol v2 over HTTP, one model to a process.

`http/` is the bounded HTTP edge and `protocol/` the codec. `api/routes.py` joins them to `inference/data_plane.py`,
which knows no transport. `follower/` follows the traffic plan on threads of its own. `server.py` is the process. No
request touches the ledger.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.rollout.model.serving_config import ConnectionLimits
    from holdfast.serve.server import serve_forever

__all__ = ["ConnectionLimits", "serve_forever"]

_HOMES = {
    "ConnectionLimits": "holdfast.rollout.model.serving_config",
    "serve_forever": "holdfast.serve.server",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: a client of one part does not need the event loop and the runtime of all.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
