"""Errors that a user can act on.

Each error has four parts: a stable code, what failed, what state is left, and the next command. The class is the *kind* of
error, so that an edge (command line, HTTP) can map it with one table; the code is *which*.
Nothing here knows about HTTP or exit codes.
"""

from __future__ import annotations

from functools import partial
from typing import Final

CODES: Final[dict[str, str]] = {
    # 1xx: what the user wrote
    "HF101": "The arguments of a command are missing, malformed or contradict each other.",
    "HF102": "The project's model file is missing or cannot be loaded.",
    "HF103": "A setting has a value that cannot be used.",
    "HF104": "A contract is declared wrongly: a column, rule, key or missing-value policy.",
    "HF105": "A feature or aggregate is declared wrongly, or does not fit the contract.",
    "HF106": "A feed is declared wrongly: its name, source or expectations.",
    "HF107": "A model is declared wrongly: its parts, selection, gates, canary, webhooks or drills.",
    "HF108": "A document cannot be read: a contract, profile, chart or runtime in JSON.",
    "HF109": "A name, duration or time is malformed.",
    "HF110": "`holdfast init` cannot derive a project from this file.",
    "HF111": "A learner or holdout is declared wrongly.",
    "HF112": "An optional part of Holdfast is not installed here.",
    "HF113": "A field of a declaration has a value of another type.",
    # 2xx: deliveries and their sources
    "HF201": "The source of a batch is missing or cannot be read.",
    "HF202": "The columns of a batch are not the columns of its feed's contract.",
    "HF203": "A batch id was loaded before with other content, or its content under another id.",
    "HF204": "A batch has no valid row.",
    "HF205": "The outcome of a commit is unknown: the connection was lost before the reply.",
    "HF206": "A feed has rows with the same key in several batches.",
    "HF207": "A delivery was refused by an expectation of its feed.",
    "HF208": "A feed has a suspect batch that is not accepted yet.",
    "HF209": "The system that a batch is read from did not answer in time.",
    "HF210": "An incompatible contract change: existing data, callers or models depend on the old contract.",
    "HF211": "A batch is not loaded, so it cannot be backed out.",
    "HF212": "Files of one table hold a column in different types.",
    # 3xx: the store
    "HF301": "A file of the store is missing, truncated or altered.",
    "HF302": "The ledger cannot be reached or did not answer in time.",
    "HF303": "The named row of the ledger does not exist: a feed, batch, snapshot, version, rollout or other.",
    "HF304": "Another process has changed this row first, has taken the lease, or has the name of this server.",
    "HF305": "A file of the store cannot be repaired: no copy of its content exists.",
    "HF306": "A backup or restore cannot be made at this place.",
    "HF307": "The store cannot be written: the disk is full, fails or forbids it.",
    "HF308": "The event log fails its hash chain: an event was changed, inserted, removed or truncated.",
    "HF309": "The ledger is damaged, altered or lost.",
    "HF310": "The database is not a ledger, or a newer Holdfast made it.",
    "HF311": "Concurrent writers came first at every attempt.",
    "HF312": "A worker process or the Ray cluster failed.",
    "HF313": "The file system lacks what the operation needs: hard links or locks.",
    "HF314": "A shortened name matches more than one row.",
    "HF315": "The files of a snapshot or table version were vacuumed.",
    "HF316": "A server's own file is damaged: its prediction log, local copy or abort file.",
    # 4xx: models and rollouts
    "HF401": "There is not enough data to train or to evaluate.",
    "HF402": "A learner failed, or its model cannot be converted.",
    "HF403": "A version may not be rolled out: it is not qualified, was refused, or serves already.",
    "HF404": "The state of the rollout does not allow this operation.",
    "HF405": "More rows were discarded than the discard budget allows.",
    "HF406": "A version or snapshot is tainted: it was made from rows that were backed out.",
    "HF407": "The training rows contain rows that the selection forbids.",
    "HF408": "The rows lack a column that the features read, or have it in another type.",
    "HF409": "A change is committed, but servers did not follow it in time.",
    "HF410": "There is nothing to do: no row is in the state that the operation needs.",
    "HF411": "The data of a snapshot are of lower quality than the model declares.",
    # 5xx: serving
    "HF501": "An HTTP request is malformed, too large or too slow.",
    "HF502": "A request breaks the model's contract.",
    "HF503": "No version can serve the request.",
    "HF504": "The server is overloaded or shutting down.",
    "HF505": "A prediction id is unknown, or its label contradicts an earlier one.",
    "HF506": "A server cannot be reached, or did not become ready in time.",
    "HF507": "A server cannot start: its address is taken or cannot be used, or `holdfast up` already runs for the store.",
    "HF508": "The body of an inference request cannot be decoded.",
    "HF509": "The server does not serve this host, path, method or content coding.",
    "HF510": "A rollback over HTTP is disabled, or a request lacks the token that it needs.",
    "HF511": "The body of a feedback or abort request cannot be decoded.",
    "HF512": "A source has used up its quota of labels.",
    # 6xx: other systems that are notified
    "HF601": "A webhook or an event receiver did not answer in time, or rejected the request.",
    # 9xx: defects
    "HF901": "A defect of Holdfast itself.",
}
"""Every code with its meaning; the reference page is generated from it."""


class HoldfastError(Exception):
    """Base of every error that Holdfast raises on purpose.

    Parameters
    ----------
    code
        A key of `CODES`; stable across releases.
    what
        What happened, in one sentence, with the names and numbers involved.
    state
        What state is left behind ("nothing was written").
    next_command
        The command or action that leads on.
    """

    def __init__(self, code: str, what: str, *, state: str = "", next_command: str = "") -> None:
        if code not in CODES:
            raise ValueError(f"unknown error code {code!r}")
        self.code = code
        self.what = what
        self.state = state
        self.next_command = next_command
        super().__init__(str(self))

    def __str__(self) -> str:
        """Return the complete message on one line.

        >>> str(InputError("HF201", "jan.csv does not exist", state="nothing was written"))
        'HF201: jan.csv does not exist; nothing was written'
        """
        next_command = f"next: {self.next_command}" if self.next_command else ""
        return "; ".join(filter(None, (f"{self.code}: {self.what}", self.state, next_command)))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the parts, so that an error crosses from one process to another."""
        remade = partial(type(self), state=self.state, next_command=self.next_command)
        return remade, (self.code, self.what)

    def as_dict(self) -> dict[str, str]:
        """Return the error as the four fields of every JSON surface."""
        return {"code": self.code, "what": self.what, "state": self.state, "next_command": self.next_command}


class InputError(HoldfastError):
    """The input is wrong: a declaration, a file, a request."""


class ConflictError(HoldfastError):
    """The operation contradicts what exists."""


class NotFoundError(HoldfastError):
    """The named thing does not exist."""


class RefusedError(HoldfastError):
    """A rule of the system forbids the operation."""


class IntegrityError(HoldfastError):
    """Stored data differs from what was acknowledged."""


class UnavailableError(HoldfastError):
    """The operation is not possible now; the same call may succeed later."""


class QuotaError(UnavailableError):
    """The caller has used up what it may use; the same call succeeds later."""


def missing_extra(extra: str, purpose: str, *, state: str = "nothing was changed") -> InputError:
    """Return the error of a call that needs a package which only the extra `extra` installs.

    >>> str(missing_extra("delta", "exporting Delta tables"))
    "HF112: exporting Delta tables needs the extra 'delta'; nothing was changed; next: pip install 'holdfast[delta]'"
    """
    return InputError(
        "HF112",
        f"{purpose} needs the extra '{extra}'",
        state=state,
        next_command=f"pip install 'holdfast[{extra}]'",
    )
