"""What tests of every kind share."""

from __future__ import annotations

import os

import pytest

from tests.support import processes

os.environ["PYTHONPATH"] = processes.PYTHONPATH

pytest_plugins = [
    "tests.support.deliveries",
    "tests.support.ledgers",
    "tests.support.serving_world",
    "tests.support.webhook_server",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--ledger postgresql` runs every test that opens a store in its own process on PostgreSQL."""
    parser.addoption("--ledger", choices=["sqlite", "postgresql"], default="sqlite")


@pytest.fixture(autouse=True)
def _ledger(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--ledger") == "postgresql" and not request.node.get_closest_marker("sqlite"):
        request.getfixturevalue("postgres_ledgers")
