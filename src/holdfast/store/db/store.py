"""A store: a directory of files and the ledger that catalogs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import UnavailableError
from holdfast.settings import Settings
from holdfast.store.db.ledger import Ledger, sqlite_url
from holdfast.store.durability.fsync import make_directory


@dataclass(frozen=True, slots=True)
class Store:
    """A directory of files and the ledger that catalogs them."""

    root: Path
    ledger: Ledger

    @classmethod
    def open(cls, root: Path, ledger_url: str | None = None, *, recovering: bool = False) -> Store:
        """Open the store in directory `root`, created if missing. Without a URL the ledger is a SQLite file in it.

        If rows are there and the ledger is new, it was lost: an empty one would make every row an orphan. `recovering`
        allows that to a rebuild. Raises `UnavailableError` HF307 if the directory cannot be created, and as `Ledger.open`.
        """
        try:
            make_directory(root)
        except OSError as error:
            raise UnavailableError(
                "HF307",
                f"the store's directory {root} cannot be made: {error.strerror}",
                state="nothing was changed",
                next_command="name another directory in HOLDFAST_ROOT",
            ) from error
        holds_rows = any((root / "rows").glob("*.parquet"))
        url = ledger_url or sqlite_url(root / "ledger.db")
        return cls(root, Ledger.open(url, may_be_new=recovering or not holds_rows))

    @classmethod
    def of(cls, settings: Settings) -> Store:
        """Open the store that `settings` name."""
        return cls.open(settings.root, settings.ledger_url)
