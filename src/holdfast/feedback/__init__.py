"""Labels that arrive late: which are accepted, and which prediction each belongs to."""

from holdfast.feedback.join import (
    Frontier,
    Impossible,
    Joined,
    Label,
    Prediction,
    Settlement,
    Waiting,
    is_ahead,
    settle_labels,
)
from holdfast.feedback.labels import Arrival, PredictionId, classify_label, parse_id

__all__ = [
    "Arrival",
    "Frontier",
    "Impossible",
    "Joined",
    "Label",
    "Prediction",
    "PredictionId",
    "Settlement",
    "Waiting",
    "classify_label",
    "is_ahead",
    "parse_id",
    "settle_labels",
]
