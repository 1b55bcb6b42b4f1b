"""The inference server: Open Inference Protocol v2 over HTTP, one model to a process.

`http.py` is the bounded HTTP edge, `oip.py` the codec, `routes.py` joins them to `plane.py`, the data plane without any
transport; `endpoint.py` (with `screen.py`) checks requests against the contract, `version.py` is a warm version. `warm.py`
follows the traffic plan on a thread of its own and keeps `local_copy.py`; `metrics.py` is what Prometheus reads;
`run.py` is the process. The ledger is never touched on the way of a request.
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
