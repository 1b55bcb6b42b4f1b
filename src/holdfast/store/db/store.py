"""A store: a directory of files and the ledger that catalogues them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import UnavailableError
from holdfast.settings import Settings
from holdfast.store.db.ledger import Ledger, sqlite_url
from holdfast.store.durability.fsync import make_directory


@dataclass(frozen=True, slots=True)
class Store:
    """Where everything is kept: a directory of files and the ledger that says what they mean."""

    root: Path
    ledger: Ledger

    @classmethod
    def open(cls, root: Path, ledger_url: str | None = None, *, recovering: bool = False) -> Store:
        """The store in directory `root`, made when it is not there. Without a URL the ledger is SQLite inside it.

        Where rows lie and the ledger is new, it was lost: an empty one in its place would call every row an orphan.
        `recovering` allows it to whoever is about to fill it. Raises `UnavailableError` HF307 when the directory cannot be
        made, `IntegrityError` HF307 when the ledger was lost, and as `Ledger.open` does.
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
        """The store that `settings` name."""
        return cls.open(settings.root, settings.ledger_url)
