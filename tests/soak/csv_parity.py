"""The reader of CSV takes every file apart as Python's `csv` with strict=True does, or refuses it (R12).

    python -m tests.soak.csv_parity --files 1000000 --seed 1

Files are drawn of the characters at which readers differ: quotes, separators, line ends, byte order marks, NUL. Half of them
are written by `csv.writer`, with values of these characters, and some of those are truncated; half are such characters in any
order. They are read in blocks of 1 to 40 bytes, so that nearly everything lies across the border of two. A file that `csv`
reads may be refused for one reason only: it ends within a line. Prints the seed, and exits with 1 on any difference.
"""

from __future__ import annotations

import csv
import io
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.command import Command
from holdfast.store.sources.csv_reader import read_csv
from holdfast.store.sources.delivery import UnreadableError

SEPARATORS = (",", ";", "\t", "|")
PIECES = (
    '"',
    '"',
    '""',
    ",",
    ";",
    "\t",
    "|",
    "\n",
    "\r\n",
    "\r",
    "a",
    "b ",
    " ",
    "é",
    "\ufeff",
    '"x"',
    "\0",
    "\\",
    "'",
)
_BLOCK_BYTES = 40


@dataclass
class Outcome:
    """What was compared: files that were read alike, that both refused, that end within a line, and differences."""

    files: int = 0
    read: int = 0
    refused: int = 0
    truncated: int = 0
    differences: list[str] = field(default_factory=list)


def compare(outcome: Outcome, text: str, separator: str, block_bytes: int) -> None:
    """Compare the rows of the reader with those of `csv`, and note a difference."""
    outcome.files += 1
    rows = _expected(text.removeprefix("\ufeff"), separator)
    try:
        found = read_csv(text.encode(), separator, block_bytes=block_bytes)
    except UnreadableError as error:
        if not rows:
            outcome.refused += 1
        elif "ends within a line" in str(error) and len(rows[-1]) < len(rows[0]):
            outcome.truncated += 1
        elif "twice in its header" in str(error) and len(set(rows[0])) < len(rows[0]):
            outcome.refused += 1
        else:
            outcome.differences.append(f"{text!a} is refused: {error}")
        return
    if not rows:
        outcome.differences.append(f"{text!a} is read as {found}")
        return
    outcome.read += 1
    width = len(rows[0])
    valid = [tuple(row) for row in rows[1:] if len(row) == width]
    broken = [row for row in rows[1:] if len(row) != width]
    lines = [row for line in found.lines for row in _expected(line, separator)]
    if (found.frame.columns, found.frame.rows(), lines) != (rows[0], valid, broken):
        outcome.differences.append(f"{text!a} in blocks of {block_bytes} is read as {found}, not as {rows}")


def _expected(text: str, separator: str) -> list[list[str]]:
    """Return the rows that `csv` reads, without empty lines; none if it refuses the text."""
    lines = io.StringIO(text, newline="")
    try:
        return [row for row in csv.reader(lines, delimiter=separator, strict=True) if row]
    except csv.Error:
        return []


def soak(files: int, seed: int) -> Outcome:
    """Compare `files` files, drawn by `seed`."""
    outcome, draw = Outcome(), random.Random(seed)
    for _ in range(files):
        separator = draw.choice(SEPARATORS)
        width = draw.randint(1, 3)
        header = separator.join("abc"[:width]) + draw.choice(("\n", "\r\n", "\r"))
        text = draw.choice(("", "", "\ufeff", "\n")) + header
        text += _anything(draw) if draw.random() < 0.5 else _written(draw, separator, width)
        compare(outcome, text, separator, draw.randint(1, _BLOCK_BYTES))
    return outcome


def _anything(draw: random.Random) -> str:
    return "".join(draw.choices(PIECES, k=draw.randint(0, 25)))


def _written(draw: random.Random, separator: str, width: int) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(
        file,
        delimiter=separator,
        lineterminator=draw.choice(("\n", "\r\n", "\r")),
        quoting=draw.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    )
    for _ in range(draw.randint(1, 6)):
        fields = width if draw.random() < 0.9 else draw.randint(1, 4)
        writer.writerow(["".join(draw.choices(PIECES, k=draw.randint(0, 4))) for _ in range(fields)])
    text = file.getvalue()
    return text[: -draw.randint(1, 4)] if draw.random() < 0.3 else text


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.csv_parity", __doc__)
    command.size("--files", 1_000_000, 2_000, help="files to compare")
    command.size("--seed", 1, 2013, help="of the generator")
    options = command.parse(arguments)
    outcome = soak(options.files, options.seed)
    for difference in outcome.differences[:5]:
        print(f"DIFFERENT: {difference}")
    figures = {
        "files": outcome.files, "seed": options.seed, "read": outcome.read, "refused_by_both": outcome.refused,
        "refused_as_truncated": outcome.truncated, "differences": len(outcome.differences),
    }  # fmt: skip
    return command.finish(figures, passed=not outcome.differences)


if __name__ == "__main__":
    sys.exit(main())
