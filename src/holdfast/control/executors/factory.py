"""Choose the executor that a setting or an option names."""

from __future__ import annotations

import os

from holdfast.control.executors.executor import Executor, LocalExecutor
from holdfast.errors import InputError
from holdfast.settings import EXECUTORS


def open_executor(kind: str, address: str = "") -> Executor:
    """Open the executor `kind`: "local" (this process), "processes" (one for each core) or "ray".

    Parameters
    ----------
    address
        The Ray cluster: "host:port", "auto" for the one that this machine is part of, "" to start one until `close`.

    Raises `InputError` HF103 on another name, or when Ray is not installed, and `UnavailableError` HF302 when the cluster
    cannot be reached.
    """
    match kind:
        case "local":
            return LocalExecutor()
        case "processes":
            return LocalExecutor(len(os.sched_getaffinity(0)))
        case "ray":
            return _ray(address)
        case _:
            raise InputError(
                "HF103",
                f"{kind!r} is no executor; there are {', '.join(EXECUTORS)}",
                state="nothing was changed",
                next_command="holdfast train --help",
            )


def _ray(address: str) -> Executor:
    try:
        from holdfast.control.executors.ray import RayExecutor
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError(
            "HF103",
            "Ray is not installed here",
            state="nothing was changed",
            next_command="pip install '.[ray]' in the clone of Holdfast",
        ) from error
    return RayExecutor.connect(address)
