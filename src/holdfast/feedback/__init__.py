"""Labels that come back late: which may be taken, and which answer each belongs to."""

from holdfast.feedback.join import (
    Answer,
    Frontier,
    Impossible,
    Joined,
    Label,
    Settled,
    Waiting,
    ahead,
    settle,
)
from holdfast.feedback.labels import Arrival, PredictionId, arrival, parse_id

__all__ = [
    "Answer",
    "Arrival",
    "Frontier",
    "Impossible",
    "Joined",
    "Label",
    "PredictionId",
    "Settled",
    "Waiting",
    "ahead",
    "arrival",
    "parse_id",
    "settle",
]
