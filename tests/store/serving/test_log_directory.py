"""Whose a server's log directory is."""

from __future__ import annotations

from pathlib import Path

from holdfast.store.serving.log_directory import claim


def test_a_name_belongs_to_one_process_and_one_model(tmp_path: Path) -> None:
    first = claim(tmp_path, "m")
    second = claim(tmp_path, "m")
    assert (first.server, second.server) == ("s1", "s2")
    first.release()
    other = claim(tmp_path, "another")
    assert other.server == "s3"
    again = claim(tmp_path, "m")
    assert again.server == "s1"
    for each in (second, other, again):
        each.release()
