"""The commands in the order of the help page, each with what the page shows of it before its module is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ListedCommand:
    """A command or a group of commands; a test holds `panel` and `summary` against the command itself.

    Parameters
    ----------
    module
        The module of `holdfast.cli` that registers it.
    panel
        The heading of the help page that it stands under.
    summary
        The first line of its help.
    """

    module: str
    panel: str
    summary: str


COMMANDS: Final[dict[str, ListedCommand]] = {
    "init": ListedCommand(
        "commands.project.init",
        "Begin",
        "Write a model file for your own data: a suggested contract, features, gates and rollout, to read and correct.",
    ),
    "demo": ListedCommand(
        "demo.demo",
        "Begin",
        "Load, train, qualify, roll out, serve and roll back a bad push, on real flights of New York, 2013.",
    ),
    "check": ListedCommand(
        "commands.ingest.ingest",
        "Rows",
        "Check the declaration; with FEED and DATA also what loading would accept, report or refuse.",
    ),
    "ingest": ListedCommand(
        "commands.ingest.ingest",
        "Rows",
        "Load batches, each completely and exactly once, in order, checked by the feed's contract.",
    ),
    "contract": ListedCommand(
        "commands.ingest.contracts", "Rows", "Contracts of rows: show, compare, accept a change, suggest."
    ),
    "declaration": ListedCommand(
        "commands.project.declarations",
        "Rows",
        "What model.py declared when: list, compare, restore an earlier one.",
    ),
    "snapshot": ListedCommand(
        "commands.catalog.snapshots", "Rows", "Snapshots of the tables: create, list, show, compare, export."
    ),
    "feeds": ListedCommand(
        "commands.ingest.feeds",
        "Rows",
        "Show each feed: its state, its batches, what is overdue, and which expectations were violated.",
    ),
    "accept": ListedCommand(
        "commands.ingest.feeds", "Rows", "Accept a suspect batch, so that models may be trained on it."
    ),
    "quarantine": ListedCommand(
        "commands.ingest.feeds",
        "Rows",
        "List the rows that violate the contract, as they were delivered, with the reasons of each.",
    ),
    "backout": ListedCommand(
        "commands.backout.backout",
        "Rows",
        "Show the plan that removes a batch and everything made from it; carry it out with --apply.",
    ),
    "lineage": ListedCommand(
        "commands.backout.backout",
        "Rows",
        "Show what was made from a batch, snapshot or version; with --upstream, what it was made from.",
    ),
    "train": ListedCommand(
        "commands.training.train", "Versions", "Train a version, and its heuristic, on a snapshot."
    ),
    "qualify": ListedCommand("commands.training.train", "Versions", "Run every gate on a version."),
    "versions": ListedCommand(
        "commands.training.versions",
        "Versions",
        "What versions were made with, and what a request to them is.",
    ),
    "rollout": ListedCommand(
        "commands.rollout.rollout",
        "Versions",
        "Roll a version out: start, follow, pause, undo, and list what became of earlier ones.",
    ),
    "rollback": ListedCommand(
        "commands.rollout.rollback", "Versions", "Return all traffic to the version before, at once."
    ),
    "policy": ListedCommand(
        "commands.rollout.policy",
        "Versions",
        "Compare the declared rollout policy with that of an earlier rollout: false rollbacks, and harm found.",
    ),
    "serving-config": ListedCommand(
        "commands.runtimes.serving_config", "Running", "The limits of servers: show and push them."
    ),
    "servers": ListedCommand(
        "commands.serving.servers",
        "Running",
        "The servers of the model: list them, forget one, separate one from a copy of it.",
    ),
    "runtime": ListedCommand(
        "commands.runtimes.runtime",
        "Running",
        "The set of Python and package versions that serves: register, test and push it.",
    ),
    "replay": ListedCommand(
        "commands.evaluation.replay", "Versions", "Replay recorded requests with a version, offline."
    ),
    "drill": ListedCommand(
        "commands.drills.drill", "Running", "Run drills of rollback, restore and the rest."
    ),
    "serve": ListedCommand(
        "commands.serving.processes",
        "Running",
        "Serve predictions (Open Inference Protocol v2 over REST) until SIGTERM or Ctrl-C.",
    ),
    "control": ListedCommand(
        "commands.serving.processes",
        "Running",
        "Run the control loop: collect logs, join labels, advance and roll back rollouts, until SIGTERM or Ctrl-C.",
    ),
    "page": ListedCommand(
        "commands.serving.processes",
        "Running",
        "Serve the status page, and its JSON at /api/status, until SIGTERM or Ctrl-C.",
    ),
    "up": ListedCommand(
        "commands.serving.processes",
        "Running",
        "Run server, control loop and page together, and restart those that die.",
    ),
    "verify": ListedCommand(
        "commands.maintenance.maintenance",
        "The store",
        "Check ledger, files, checksums, exported tables and logs against each other.",
    ),
    "backup": ListedCommand(
        "commands.maintenance.maintenance",
        "The store",
        "Back up ledger and files, consistently, while other processes run.",
    ),
    "restore": ListedCommand(
        "commands.maintenance.maintenance",
        "The store",
        "Restore a backup where there is no store, and verify every byte.",
    ),
    "rebuild-ledger": ListedCommand(
        "commands.maintenance.maintenance",
        "The store",
        "Rebuild a lost ledger from the files, as far as they prove it.",
    ),
    "compact": ListedCommand("commands.maintenance.maintenance", "The store", "Merge small files."),
    "vacuum": ListedCommand(
        "commands.maintenance.maintenance",
        "The store",
        "Show which files no kept snapshot needs, and which predictions have expired; delete exactly these with --apply.",
    ),
    "audit": ListedCommand(
        "commands.maintenance.audit", "The store", "Check the hash chain of the event log."
    ),
    "events": ListedCommand(
        "commands.reports.events",
        "Running",
        "Print the event log, oldest first; with --json or --cdevents as JSON, one event per line.",
    ),
    "explain": ListedCommand(
        "commands.reports.explain",
        "Versions",
        "Explain a rollout: each decision with its evidence, the webhooks, and the traffic plan that followed.",
    ),
    "status": ListedCommand(
        "commands.reports.status",
        "Running",
        "Show feeds, versions, the rollout, servers and the quality of predictions.",
    ),
    "feedback": ListedCommand(
        "commands.serving.feedback",
        "Running",
        "Send the label of one prediction, or of the row with a key, to the server.",
    ),
    "labels": ListedCommand(
        "commands.serving.labels", "Running", "Labels in quarantine: list and drop them."
    ),
}
