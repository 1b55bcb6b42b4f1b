"""Names of the metrics of a rollout."""

from __future__ import annotations

from typing import Final

ERRORS: Final = "errors"
LATENCY: Final = "latency"
QUALITY: Final = "quality"
SLICES: Final = "slices"
RATE: Final = "rate"

SHADOW_PREFIX: Final = "shadow."
"""Prefix of the metrics that copies of requests show."""
SHADOW_DISAGREEMENT: Final = "shadow.disagreement"
SHADOW_SCORE: Final = "shadow.score"
SHADOW_ERRORS: Final = "shadow.errors"
SHADOW_LATENCY: Final = "shadow.latency"
SHADOW_QUALITY: Final = "shadow.quality"
