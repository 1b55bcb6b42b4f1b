"""Rows of shadow files hold every field of their records."""

from holdfast.control.collect.log_summary import shadow_rows
from holdfast.store.serving.prediction_log import ShadowRecord


def test_each_field_of_a_record_is_in_its_column() -> None:
    record = ShadowRecord("s1-1-1", 1, b"u", 2, "new", "ok", 3, 4, [0.25, 0.5], "old", "ok", 5, [0.75])
    first, second = shadow_rows([record]).rows(named=True)
    common = {
        "at_us": 1, "unit": b"u", "rollout": 2, "version": "new", "result": "ok", "latency_us": 3, "champion_rerun_us": 4,
        "champion": "old", "champion_result": "ok", "champion_latency_us": 5,
    }  # fmt: skip
    assert first == common | {"prediction": "s1-1-1/0", "probability": 0.25, "champion_probability": 0.75}
    assert second == common | {"prediction": "s1-1-1/1", "probability": 0.5, "champion_probability": None}
