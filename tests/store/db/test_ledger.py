"""The ledger is opened where the project is, or refused in words."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from holdfast.errors import HoldfastError
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.db import ledger
from holdfast.store.db.ledger import Ledger, sqlite_url


@pytest.mark.sqlite
@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "a b", "\N{AIRPLANE DEPARTURE}", "a'b\"c", "a&b=c"])
def test_a_project_may_lie_in_any_directory(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    Store.of(Settings.read(root, {"HOLDFAST_ROOT": "store"})).ledger.close()
    assert {path.name for path in (root / "store").iterdir()} == {
        "ledger.db",
        "ledger.db-lock",
        "ledger.db-checksums",
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
    with pytest.raises(HoldfastError, match=r"HF307.*/dev/null/store cannot be made"):
        Store.open(Path("/dev/null/store"))


def _patience_ms(opened: Ledger) -> int:
    with opened.read() as connection:
        return int(connection.execute(text("PRAGMA busy_timeout")).scalar_one())


@pytest.mark.sqlite
def test_a_writer_takes_its_turn_when_the_one_before_it_is_done(tmp_path: Path) -> None:
    mine, other = (Ledger.open(sqlite_url(tmp_path / "ledger.db")) for _ in range(2))
    order = []

    def write() -> None:
        with other.write():
            order.append("other")

    waiting = threading.Thread(target=write)
    with mine.write():
        waiting.start()
        waiting.join(0.1)
        order.append("mine")
    waiting.join()
    assert order == ["mine", "other"]
    assert _patience_ms(other) == 1000 * ledger.BUSY_SECONDS


@pytest.mark.sqlite
def test_a_writer_whose_turn_never_comes_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BUSY_SECONDS", 0.05)
    mine, other = (Ledger.open(sqlite_url(tmp_path / "ledger.db")) for _ in range(2))
    with mine.write(), pytest.raises(HoldfastError, match="locked") as refused, other.write():
        raise AssertionError("two writers at once")
    assert refused.value.code == "HF302"
    with other.write():
        pass
