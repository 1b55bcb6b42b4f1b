"""Separate the log directory of a second process under a name, so that the next server of the root gets a name of its own."""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import ConflictError, NotFoundError
from holdfast.records import NAME
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.durability.file_locks import seized
from holdfast.store.maintenance.repairs import set_aside
from holdfast.store.serving import log_directory, members


def separate(store: Store, name: str, *, actor: str, now_us: int) -> Path:
    """Move the log directory of server `name` under the root of `store` aside, and return its new path.

    Its log stays there, and is never collected: another process gave the same prediction ids.

    Raises
    ------
    NotFoundError
        HF303 if the root has no such directory, HF410 if the ledger has the name on this directory: it is no copy.
    ConflictError
        HF304 while a process holds the directory.
    """
    directory = store.root / log_directory.LOGS_DIRECTORY / name
    if not NAME.match(name) or not directory.is_dir():
        raise NotFoundError(
            "HF303",
            f"the root {store.root} has no server {name!r}",
            state="nothing was changed",
            next_command="run it in the project of the second process; holdfast servers list shows its host",
        )
    with store.ledger.read() as connection:
        member = members.find(connection, name)
    if member is None or log_directory.is_log_of(directory, name, member.server.boot_id):
        raise NotFoundError(
            "HF410",
            f"no other process has the name {name}, by the ledger",
            state="nothing was changed",
            next_command="holdfast servers list",
        )
    identity = log_directory.read_identity(directory)
    with seized(directory / log_directory.OWNER) as stopped:
        if not stopped:
            raise ConflictError(
                "HF304",
                f"a process runs as {name} in {directory}",
                state="nothing was changed",
                next_command="stop it, and give the command again",
            )
        moved = set_aside(store.root, directory)
    with store.ledger.write() as connection:
        for boot_id in () if identity is None else identity.boots:
            members.end_conflict(connection, name, boot_id)
        events.append(
            connection,
            at_us=now_us,
            kind="server.separated",
            subject=f"server/{name}",
            actor=actor,
            explanation=f"The second process under the name {name} gets a new name; its log is in {moved}, and not collected.",
        )
    return moved
