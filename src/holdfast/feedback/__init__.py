"""Labels that arrive late: which are accepted, and which prediction each belongs to."""

from holdfast.feedback.join import (
    FEED_SOURCE,
    Arrival,
    Frontier,
    Impossible,
    Joined,
    Label,
    Prediction,
    PredictionId,
    Settlement,
    Waiting,
    classify_label,
    full_id,
    is_ahead,
    parse_id,
    settle_labels,
)

__all__ = [
    "FEED_SOURCE",
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
    "full_id",
    "is_ahead",
    "parse_id",
    "settle_labels",
]
