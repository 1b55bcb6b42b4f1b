"""The servers of the model as members: servers list, forget, separate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from holdfast.cli.app import command_group
from holdfast.cli.output import escape
from holdfast.cli.project import UNSTATED, Reason, Run, now_us, with_project
from holdfast.control.maintenance import log_directories
from holdfast.control.probing import membership
from holdfast.formatting import span
from holdfast.rollout.model.membership import MemberState
from holdfast.store.serving import members
from holdfast.store.serving.members import UNKNOWN, Member

group = command_group(
    "servers", "Running", "The servers of the model: list them, forget one, separate one from a copy of it."
)
_NEXT: Final = {
    MemberState.SILENT: "look at its host and its log: no heartbeat of it came, and it did not respond",
    MemberState.LOST: "start it again on its disk, or holdfast servers forget {name}",
}

ServerName = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of a server, as `servers list` shows it.")
]


@group.command(name="list")
@with_project
def list_(
    run: Run,
    everything: Annotated[bool, typer.Option("--all", help="List those that have ended, too.")] = False,
) -> None:
    """List the servers: the state of each, its host, release and address, and when it was last heard from.

    Example: holdfast servers list --all
    """
    model = run.model.name
    with run.store.ledger.read() as connection:
        known = [each for each in members.of_model(connection, model) if not each.is_forgotten]
        conflicts = members.conflicts(connection, model)
    shown = [each for each in known if everything or each.state is not MemberState.GONE]
    rows = [_document(each) for each in shown]
    run.out.records(
        "Servers",
        rows,
        {
            "server": lambda row: row["server"],
            "state": lambda row: row["state"],
            "for": lambda row: "" if row["heard_us"] is None else span(row["in_state_us"] / 1e6),
            "heard from": lambda row: "" if row["heard_us"] is None else f"{span(row['heard_us'] / 1e6)} ago",
            "host": lambda row: row["host"] or "",
            "release": lambda row: row["release"] or "",
            "address": lambda row: row["address"],
        },
    )
    for each in shown:
        if each.state in _NEXT:
            command = _NEXT[each.state].format(name=each.server.server)
            run.out.print(f"[yellow]{each.state}[/] {escape(each.server.server)}; next: {escape(command)}")
    for conflict in conflicts:
        run.out.print(f"[red]{escape(conflict.explanation)}[/]")
    run.out.result({"servers": rows, "conflicts": [asdict(each) for each in conflicts]})


def _document(member: Member) -> dict[str, Any]:
    server = member.server
    return {
        "server": server.server,
        "state": member.state or UNKNOWN,
        "in_state_us": member.in_state_us,
        "heard_us": member.heard_us,
        "stated": member.stated,
        "host": server.host,
        "release": server.release,
        "address": server.address,
        "private_address": server.private_address,
        "boot_id": server.boot_id,
        "log_directory": str(server.log_directory),
        "started_at_us": server.started_at_us,
    }


@group.command()
@with_project
def forget(run: Run, name: ServerName, reason: Reason = UNSTATED) -> None:
    """Forget a server that will not come back: it is no longer listed or polled. Its predictions and labels stay.

    If it comes back all the same, it is listed again.

    Example: holdfast servers forget s4k7wq2mzt5ha --reason "its host was taken down"
    """
    membership.forget(run.store, run.model.name, name, reason, actor=run.actor, now_us=now_us())
    run.out.print(f"[green]ok[/] server {escape(name)} is forgotten; its predictions and labels stay")
    run.out.result({"server": name})


@group.command()
@with_project
def separate(run: Run, name: ServerName) -> None:
    """Let the server of this root that is the second under its name (HF304) get a new name with its next start.

    Stop it first. Its log directory is moved to `aside/` under the root. What it logged stays there and is not collected,
    because another process gave the same prediction ids.

    Example: holdfast servers separate s1
    """
    moved = log_directories.separate(run.store, name, actor=run.actor, now_us=now_us())
    run.out.print(
        f"[green]ok[/] moved the log directory to {escape(str(moved))}; the next server gets a new name"
    )
    run.out.result({"server": name, "moved_to": str(moved)})
