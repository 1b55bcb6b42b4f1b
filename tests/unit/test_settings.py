"""What cannot be used as a setting is refused with HF103, whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import InputError
from holdfast.settings import Settings, resolve


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


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_secret_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "token"
    secret.write_text("0123456789abcdef")
    secret.chmod(mode)
    with pytest.raises(InputError, match=r"HF103.*other users may write.*mode 06") as refused:
        resolve(f"${{file:{secret}}}")
    assert refused.value.next_command.startswith(f"chmod 600 {secret}")


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o400, 0), (0o644, 1), (0o440, 1)])
def test_a_secret_that_others_may_read_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warnings: int
) -> None:
    """Once: hooks read theirs at each notification."""
    secret = tmp_path / "token"
    secret.write_text("0123456789abcdef\n")
    secret.chmod(mode)
    for _ in range(3):
        assert resolve(f"${{file:{secret}}}") == "0123456789abcdef"
    assert sum("other users may read" in record.getMessage() for record in caplog.records) == warnings


@pytest.mark.parametrize(
    ("token", "is_taken"), [("", True), ("abc", False), ("a" * 11, False), ("a" * 12, True)]
)
def test_a_server_requires_a_token_that_cannot_be_guessed(tmp_path: Path, token: str, is_taken: bool) -> None:
    settings = Settings.read(tmp_path, {"HOLDFAST_ABORT_TOKEN": token})
    if is_taken:
        assert settings.required_token == token
        return
    with pytest.raises(InputError, match=r"HF103.*at least 12"):
        _ = settings.required_token
