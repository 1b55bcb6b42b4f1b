"""The memory that one delivery may take while it is loaded, counted before it is taken."""

from __future__ import annotations

from typing import Final

from holdfast.store.sources.memory_room import Room, find_room

TIMES_LIMIT: Final = 2
"""A delivery never takes more than so many times its limit."""

CELL_BYTES: Final = 110
"""What a value takes from its reading to its file, besides its text: views, typed copies, order, masks."""

JSON_CELL_BYTES: Final = 40
"""What a value of JSON takes besides: the parts of a file and what they become together are there at once."""

ROW_BYTES: Final = 300
"""What a row takes besides its values: its key, its place in the order, its verdict and the reasons for it."""

TEXT_TIMES: Final = 6
"""How often the text of a value is there at once: as read, as delivered, sorted, and as it is written."""

_SMALLEST_PIECE_BYTES: Final = 1 << 16
_LARGEST_PIECE_BYTES: Final = 1 << 22


class TooLargeError(Exception):
    """The content is larger than the limit when it is unpacked, or would take more memory than it may."""

    def __init__(self, *, in_memory: bool = False, room: Room | None = None) -> None:
        super().__init__()
        self.in_memory = in_memory
        self.room = room
        """The room that the system leaves, if that is what it would not fit in."""


class Memory:
    """Counts the memory of one delivery; it is refused before it takes more than twice its limit, or than the system leaves.

    The figures of a cell, a row and a text are upper bounds that `tests/store/sources/test_memory.py` measures: a
    child loads the worst files of each format that are just accepted.

    Parameters
    ----------
    limit_bytes
        The limit of the delivery, HOLDFAST_SOURCE_BYTES.
    resident_bytes
        Of the delivery, in memory already.
    """

    def __init__(self, limit_bytes: int, resident_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self._declared_bytes = TIMES_LIMIT * limit_bytes - resident_bytes
        self._room = find_room()
        self._held_bytes = 0
        if self._declared_bytes < 0:
            raise TooLargeError(in_memory=True)
        self.piece_bytes = min(max(limit_bytes >> 7, _SMALLEST_PIECE_BYTES), _LARGEST_PIECE_BYTES)
        """How much of a text is taken apart at once."""

    @property
    def left_bytes(self) -> int:
        """What may still be held."""
        room = self._declared_bytes if self._room is None else self._room.left_bytes
        return min(self._declared_bytes, room) - self._held_bytes

    def hold(self, size: int) -> None:
        """Count `size` bytes that stay until the delivery is loaded. Raises `TooLargeError` when they are too many."""
        self.require(size)
        self._held_bytes += size

    def require(self, size: int) -> None:
        """Raise `TooLargeError` when `size` bytes, which are given back soon, are more than is left."""
        if size > self.left_bytes:
            fits_limit = size <= self._declared_bytes - self._held_bytes
            raise TooLargeError(in_memory=True, room=self._room if fits_limit else None)

    def hold_rows(self, rows: int, columns: int, text_bytes: int) -> None:
        """Count rows that are about to be read, with so many columns and so many bytes of text in all."""
        self.hold(rows * (ROW_BYTES + columns * CELL_BYTES) + TEXT_TIMES * text_bytes)

    def hold_objects(self, rows: int, columns: int) -> None:
        """Count rows that were read from JSON, with so many columns; their texts are counted apart."""
        self.hold_rows(rows, columns, 0)
        self.hold(rows * columns * JSON_CELL_BYTES)

    def hold_text(self, size: int) -> None:
        """Count texts that were read, `size` bytes in all. Raises `TooLargeError` when they are too many."""
        self.hold(TEXT_TIMES * size)

    def fits_text(self, size: int) -> bool:
        """Return True if texts of `size` bytes in all can be read."""
        return TEXT_TIMES * size <= self.left_bytes

    def text_rows(self, longest_bytes: int) -> int:
        """Return how many rows can be read of which each has at most `longest_bytes` of text."""
        return self.left_bytes // (TEXT_TIMES * max(longest_bytes, 1))

    def release(self, size: int) -> None:
        """Count `size` bytes no longer: they were given back."""
        self._held_bytes -= size
