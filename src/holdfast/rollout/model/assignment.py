"""Assign units to arms by a hash: the assignment sticks, and every server computes the same one."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from holdfast.records import EVERYTHING_PPM, Arm

_HASH_BITS: Final = 64


def salt_of(model: str, rollout: int) -> bytes:
    """Return the salt of one rollout, 16 bytes. It differs by rollout, so that no unit is always exposed first.

    >>> salt_of("m", 1) == salt_of("m", 1), salt_of("m", 1) == salt_of("m", 2)
    (True, False)
    """
    return blake2b(f"{model}/{rollout}".encode(), digest_size=16).digest()


def arm_of(unit: bytes, salt: bytes, share_ppm: int) -> Arm:
    """Return the arm of `unit` if the challenger has `share_ppm` of the units.

    Parameters
    ----------
    unit
        What is randomised: the key of a session, a user, or a request when nothing ties requests together.
    salt
        `salt_of` the rollout.
    share_ppm
        The challenger's share in parts per million, 0 to 1,000,000.

    Guarantee: sticky, the same arguments give the same arm on every server and in every release; monotone, a
    unit that the challenger has at 1 % stays with it at every larger share; over many units the realised
    share is `share_ppm` up to chance. Takes about 1 µs.

    >>> arm_of(b"user-17", b"salt", 1_000_000), arm_of(b"user-17", b"salt", 0)
    (<Arm.CHALLENGER: 'challenger'>, <Arm.CHAMPION: 'champion'>)
    """
    point = int.from_bytes(blake2b(salt + unit, digest_size=8).digest(), "big")
    # point / 2^64 < share / 10^6 in whole numbers: no rounding, so the ends 0 and 1,000,000 are exact.
    return Arm.CHALLENGER if point * EVERYTHING_PPM < share_ppm << _HASH_BITS else Arm.CHAMPION
