"""Load a project: a directory with a model file and a store."""

from __future__ import annotations

import runpy
import sys
import time
import traceback
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from holdfast.declaration import Model
from holdfast.errors import HoldfastError, InputError, NotFoundError
from holdfast.feeds import Feed
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.tables import Snapshot

MODEL_FILE = "model.py"


@dataclass(frozen=True, slots=True)
class Project:
    """The directory, settings and declared model that a command works on."""

    directory: Path
    settings: Settings
    model: Model

    @classmethod
    def load(cls, directory: Path, file: Path | None = None) -> Project:
        """Load the project in `directory`, declared by `file` (default: its model.py).

        Raises `InputError` HF102 if there is no such file, if running it fails, or if it declares no `model`.
        """
        path = (directory / (file or MODEL_FILE)).resolve()
        return cls(directory.resolve(), Settings.read(directory), _declared(path))

    def store(self) -> Store:
        """Open the project's store; create it if it does not exist."""
        return Store.of(self.settings)

    @property
    def groups(self) -> dict[str, str | None]:
        """The group of each declared feed."""
        return {feed.name: feed.group for feed in self.model.feeds}

    def snapshot(self, store: Store) -> Snapshot:
        """Create a snapshot of all the model's tables as they are now."""
        return snapshots.create(
            store,
            [feed.name for feed in self.model.feeds],
            contract_hash=self.model.contract.hash,
            now_us=now_us(),
            groups=self.groups,
            label_delays_us={self.model.examples.name: self.model.label_delay // timedelta(microseconds=1)},
        )

    def feed(self, name: str) -> Feed:
        """Return the declared feed `name`. Raises `NotFoundError` HF303, which names the declared ones."""
        for feed in self.model.feeds:
            if feed.name == name:
                return feed
        known = ", ".join(feed.name for feed in self.model.feeds)
        raise NotFoundError(
            "HF303",
            f"there is no feed {name!r}; the model declares {known}",
            state="nothing was read",
            next_command="holdfast feeds",
        )


def now_us() -> int:
    """Return the time, which each command reads once, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def _declared(path: Path) -> Model:
    if not path.is_file():
        raise _unusable(f"there is no {path.name} in {path.parent}", "holdfast init")
    # The file may import modules of its directory, as a script may.
    sys.path.insert(0, str(path.parent))
    try:
        declared = runpy.run_path(str(path)).get("model")
    except HoldfastError as error:
        raise InputError(error.code, f"{path.name}: {error.what}", state="nothing was read") from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{Path(where.filename).name}, line {where.lineno}"
        raise _unusable(f"running {path.name} failed: {type(error).__name__}: {error} ({line})") from error
    finally:
        sys.path.remove(str(path.parent))
        _unload_modules(path.parent)
    if not isinstance(declared, Model):
        raise _unusable(f"{path.name} declares no `model = Model(...)`")
    return declared


def _unusable(what: str, next_command: str = "correct the file, then the same command again") -> InputError:
    return InputError("HF102", what, state="nothing was read", next_command=next_command)


def _unload_modules(directory: Path) -> None:
    """Unload modules of `directory`, so that another project may have modules of the same names."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).parent == directory:
            del sys.modules[name]
