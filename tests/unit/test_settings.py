"""What cannot be used as a setting is refused with HF103, whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import InputError
from holdfast.settings import Settings


@pytest.mark.parametrize("port", ["", "x", "-1", "65536", "1" * 5000, "\N{ARABIC-INDIC DIGIT THREE}"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(InputError, match=r"HF103.*HOLDFAST_PORT") as refused:
        Settings.read(Path("/p"), {"HOLDFAST_PORT": port})
    assert len(str(refused.value)) < 200


def test_the_ledger_lies_in_the_root_unless_another_is_named() -> None:
    assert Settings.read(Path("/p"), {}).ledger_url == "sqlite:////p/.holdfast/ledger.db"
    assert Settings.read(Path("/p"), {"HOLDFAST_LEDGER": "sqlite://"}).ledger_url == "sqlite://"
    assert Settings.read(Path("/a?b%20#c"), {}).ledger_url == "sqlite:////a%3Fb%2520%23c/.holdfast/ledger.db"


def test_openlineage_is_found_by_the_variables_of_its_own_clients(tmp_path: Path) -> None:
    theirs = {
        "OPENLINEAGE_URL": "http://catalog",
        "OPENLINEAGE_API_KEY": "k",
        "OPENLINEAGE_NAMESPACE": "acme",
    }
    found = Settings.read(Path("/p"), theirs)
    assert (found.openlineage_url, found.openlineage_key, found.openlineage_namespace) == (
        "http://catalog",
        "k",
        "acme",
    )
    (tmp_path / "key").write_text("secret\n")
    ours = {
        "HOLDFAST_OPENLINEAGE_URL": "https://ours",
        "HOLDFAST_OPENLINEAGE_API_KEY": f"${{file:{tmp_path / 'key'}}}",
        "HOLDFAST_OPENLINEAGE_NAMESPACE": "flights",
    }
    found = Settings.read(Path("/p"), theirs | ours)
    assert (found.openlineage_url, found.openlineage_key, found.openlineage_namespace) == (
        "https://ours",
        "secret",
        "flights",
    )
    assert Settings.read(Path("/p"), theirs | {"OPENLINEAGE_DISABLED": "TRUE"}).openlineage_url == ""
    assert Settings.read(Path("/p"), {}).openlineage_namespace == "holdfast"
    with pytest.raises(InputError, match=r"HF103.*OPENLINEAGE_URL"):
        Settings.read(Path("/p"), {"OPENLINEAGE_URL": "kafka://x"})
