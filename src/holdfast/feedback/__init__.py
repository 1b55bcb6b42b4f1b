"""Labels that arrive late: which are accepted, and which prediction each belongs to."""

from holdfast.feedback.arrivals import (
    FEED_SOURCE,
    Arrival,
    KnownLabel,
    classify_label,
    compare_labels,
    correction_time_us,
    counting_label,
)
from holdfast.feedback.join import (
    MAXIMUM_WAIT_US,
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
from holdfast.feedback.label_rules import IdCheck, LabelRules
from holdfast.feedback.prediction_ids import (
    LONGEST_ID,
    SECRET_BYTES,
    IdKey,
    PredictionId,
    full_id,
    names_row,
    parse_id,
    rows_reason,
)

__all__ = [
    "FEED_SOURCE",
    "LONGEST_ID",
    "MAXIMUM_WAIT_US",
    "SECRET_BYTES",
    "Arrival",
    "Frontier",
    "IdCheck",
    "IdKey",
    "Impossible",
    "Joined",
    "KnownLabel",
    "Label",
    "LabelRules",
    "Prediction",
    "PredictionId",
    "Settlement",
    "Waiting",
    "classify_label",
    "compare_labels",
    "correction_time_us",
    "counting_label",
    "full_id",
    "is_ahead",
    "names_row",
    "parse_id",
    "rows_reason",
    "settle_labels",
]
