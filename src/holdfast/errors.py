"""Errors that a user can act on.

Each error says four things: a stable code, what happened, what state is left, and the next command. The classes say
*what kind* of trouble it is, so that an edge (command line, HTTP) can map it with one table; the code says *which*.
Nothing here knows about HTTP or exit codes.
"""

from __future__ import annotations

from typing import Final

CODES: Final[dict[str, str]] = {
    "HF101": "A declaration is wrong: a contract, feature, learner, gate or policy cannot mean what it says.",
    "HF102": "The project's model file is missing or cannot be loaded.",
    "HF103": "A setting has a value that cannot be used.",
    "HF201": "The source of a batch is missing or cannot be read.",
    "HF202": "The columns of a batch are not the columns of its feed's contract.",
    "HF203": "A batch id was loaded before with other content, or its content under another id.",
    "HF204": "A batch held no valid row.",
    "HF205": "The outcome of a commit is unknown: its answer was lost.",
    "HF206": "A feed holds rows with the same key in several batches.",
    "HF207": "A delivery was refused by an expectation of its feed.",
    "HF208": "A feed holds a batch that broke an expectation, and nobody has accepted it.",
    "HF209": "The system that a batch is read from did not answer in time, or not at all.",
    "HF210": "A contract was changed in a way that what was made under it does not survive.",
    "HF211": "A batch is not loaded, so it cannot be backed out.",
    "HF301": "A file of the store is missing, short or altered.",
    "HF302": "The ledger cannot be opened or was made by a newer Holdfast.",
    "HF303": "A row of the ledger that was asked for does not exist.",
    "HF304": "Another holder has the lease, or a newer epoch has written.",
    "HF305": "A file of the store cannot be mended: no copy of what it held is there.",
    "HF306": "A backup or restore cannot be made where it was asked for.",
    "HF307": "A file of the store cannot be written: the disk is full or fails.",
    "HF308": "The story is not the one that was told: an event was changed, put in, taken out or cut off.",
    "HF401": "There is not enough data to train or to judge.",
    "HF402": "A learner failed, or made a model that cannot be converted.",
    "HF403": "A version may not be rolled out: it was not qualified, or it was refused.",
    "HF404": "The rollout's state does not allow this event.",
    "HF405": "More rows were discarded than the discard budget allows.",
    "HF406": "A version or snapshot is tainted: it was made from rows that were backed out.",
    "HF407": "Rows that must not be learnt from are among the training rows.",
    "HF501": "A request is malformed.",
    "HF502": "A request breaks the model's contract.",
    "HF503": "No version can answer.",
    "HF504": "The server is overloaded or shutting down.",
    "HF505": "A prediction id is unknown, or its feedback contradicts an earlier one.",
    "HF901": "A defect of Holdfast itself: what happened was not foreseen.",
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
        """The whole message on one line.

        >>> str(InputError("HF201", "jan.csv does not exist", state="nothing was written"))
        'HF201: jan.csv does not exist; nothing was written'
        """
        parts = [f"{self.code}: {self.what}"]
        if self.state:
            parts.append(self.state)
        if self.next_command:
            parts.append(f"next: {self.next_command}")
        return "; ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        """So that an error crosses from one process to another whole."""
        return _remade, (type(self), self.code, self.what, self.state, self.next_command)

    def as_dict(self) -> dict[str, str]:
        """The error as the four fields of every JSON surface."""
        return {"code": self.code, "what": self.what, "state": self.state, "next_command": self.next_command}


def _remade(kind: type[HoldfastError], code: str, what: str, state: str, next_command: str) -> HoldfastError:
    return kind(code, what, state=state, next_command=next_command)


class InputError(HoldfastError):
    """What was given is wrong: a declaration, a file, a request."""


class ConflictError(HoldfastError):
    """What was asked contradicts what is already there."""


class NotFoundError(HoldfastError):
    """What was asked for does not exist."""


class RefusedError(HoldfastError):
    """A rule of the system forbids it."""


class IntegrityError(HoldfastError):
    """Something stored is not what it was when it was acknowledged."""


class UnavailableError(HoldfastError):
    """It cannot be done now; the same call may succeed later."""
