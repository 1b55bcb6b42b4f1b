"""The ledger is opened where the project is, or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import HoldfastError
from holdfast.settings import Settings
from holdfast.store import Store


@pytest.mark.sqlite
@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "a b", "\N{AIRPLANE DEPARTURE}", "a'b\"c", "a&b=c"])
def test_a_project_may_lie_in_any_directory(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    Store.of(Settings.read(root, {"HOLDFAST_ROOT": "store"})).ledger.close()
    assert {path.name for path in (root / "store").iterdir()} == {
        "ledger.db",
        "ledger.db-lock",
        "ledger.db-seal",
    }
    Store.open(tmp_path / "other" / name).ledger.close()
    assert (tmp_path / "other" / name / "ledger.db").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "other"])


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("foo", "HF103"),
        ("nothing://x/y", "HF103"),
        ("sqlite:////proc/nope/x.db", "HF302"),
        ("sqlite:////dev/null/x.db", "HF302"),
        ("sqlite:////", "HF302"),
    ],
)
def test_a_ledger_that_cannot_be_opened_is_refused_in_words(tmp_path: Path, url: str, code: str) -> None:
    with pytest.raises(HoldfastError) as refused:
        Store.open(tmp_path / "store", url)
    assert (refused.value.code, refused.value.state) == (code, "nothing was changed")


def test_a_root_that_cannot_be_made_is_refused_in_words() -> None:
    with pytest.raises(HoldfastError, match=r"HF302.*/dev/null/store cannot be made"):
        Store.open(Path("/dev/null/store"))
