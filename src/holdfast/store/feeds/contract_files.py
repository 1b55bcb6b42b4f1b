"""Copies of contracts next to the files whose rows they judged: a file's footer names its contract by hash.

The copies resolve that hash even when the ledger is lost.

A copy's name is the SHA-256 of its bytes. Copies are never removed: a contract is small, and the rows of a removed
file may come back from a backup.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from holdfast.errors import IntegrityError
from holdfast.records import sha256_hex
from holdfast.store.durability import fsync

CONTRACTS_DIRECTORY: Final = "contracts"
"""Where the copies lie, under the store's root: `contracts/<hash>.json`."""

_SYNCED: Final[set[Path]] = set()


def path_of(root: Path, contract_hash: str) -> Path:
    """Return the path of the copy of that contract, whether it exists or not."""
    return root / CONTRACTS_DIRECTORY / f"{contract_hash}.json"


def keep(root: Path, contract_hash: str, contract: str) -> None:
    """Keep `contract` (canonical JSON whose SHA-256 is `contract_hash`); it is durable on return.

    An existing copy is left alone, but each process syncs its name once: its writer may have been killed before it
    did.
    """
    path = path_of(root, contract_hash)
    if not path.exists():
        fsync.make_directory(path.parent)
        fsync.replace(path, contract.encode())
        _SYNCED.add(path)
    elif path not in _SYNCED:
        fsync.sync_directory(path.parent)
        _SYNCED.add(path)


def read(root: Path, contract_hash: str) -> str:
    """Return the contract of that hash as canonical JSON; `IntegrityError` HF301 if its copy is damaged."""
    path = path_of(root, contract_hash)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(contract_hash, "is missing") from error
    if sha256_hex(data) != contract_hash:
        raise _damaged(contract_hash, "was altered: its SHA-256 is not its name")
    return data.decode()


def _damaged(contract_hash: str, reason: str) -> IntegrityError:
    return IntegrityError(
        "HF301",
        f"the copy of contract {contract_hash[:12]} {reason}",
        state="nothing was changed",
        next_command="holdfast verify --repair",
    )
