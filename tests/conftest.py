"""What tests of every kind share: the fixtures of `tests.support`, the markers that follow from a test, and the options."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import forking, processes

os.environ["PYTHONPATH"] = processes.PYTHONPATH

pytest_plugins = [
    "tests.support.deliveries",
    "tests.support.ledgers",
    "tests.support.s3_bucket",
    "tests.support.serving_world",
    "tests.support.smoke",
    "tests.support.webhook_server",
]

# Neither a deadline nor a health check of speed: no test may depend on how fast the machine is.
settings.register_profile(
    "suite", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", settings.get_profile("suite"), max_examples=2_000)
settings.load_profile(os.environ.get("HOLDFAST_TEST_PROFILE", "suite"))

FIXTURES_OF_POSTGRES = {"postgres_server", "own_postgres", "postgres_template", "postgres_ledgers"}
FIXTURES_OF_PROCESSES = {"serve", "start_loader", "hook_server"}
LONGEST = (
    "tests/cli/demo",
    "tests/cli/commands/runtimes/test_runtime",
    "tests/soak/test_pushes",
    "tests/cli/test_first_project",
    "tests/control/evaluation/test_qualify",
    "tests/control/ingest/test_postgres_ledger",
    "tests/cli/test_tutorial",
    "tests/soak",
    "tests/store/sources/test_postgres_query",
    "tests/control/executors",
    "tests/durability",
    "tests/control/ingest",
    "tests/serve",
    "tests/web/test_browser",
    "tests/simulation",
    "tests/control",
    "tests/cli",
    "tests/store",
)
"""What takes longest comes first, so that no worker begins it when the others are done."""
FOLDERS_OF_PROCESSES = ("tests/soak", "tests/durability", "tests/cli/demo", "tests/control/executors")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--ledger postgresql` runs every test that opens a store in its own process on PostgreSQL."""
    parser.addoption("--ledger", choices=["sqlite", "postgresql"], default="sqlite")
    parser.addoption(
        "--no-processes",
        action="store_true",
        help="fail a test that starts a process or listens on a port: it lacks the marker `process`",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test the markers that its folder, its fixtures and its parameters imply."""
    for item in items:
        folder = item.path.relative_to(config.rootpath).as_posix()
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if folder.startswith(("tests/unit/", "src/")):
            item.add_marker(pytest.mark.unit)
        if fixtures & FIXTURES_OF_POSTGRES or parameters.get("each_ledger") == "postgresql":
            item.add_marker(pytest.mark.postgres)
        if fixtures & FIXTURES_OF_PROCESSES or folder.startswith(FOLDERS_OF_PROCESSES):
            item.add_marker(pytest.mark.process)
    items.sort(key=lambda item: _place(item.path.relative_to(config.rootpath).as_posix()))


def _place(path: str) -> int:
    """Return where a file belongs in the order of the run; files of one place keep their order."""
    return next((at for at, start in enumerate(LONGEST) if path.startswith(start)), len(LONGEST))


@pytest.fixture(autouse=True)
def _ledger(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--ledger") == "postgresql" and not request.node.get_closest_marker("sqlite"):
        request.getfixturevalue("postgres_ledgers")


@pytest.fixture(scope="session", autouse=True)
def _parent_of_forks() -> Iterator[None]:
    """End the process that processes of tests were forked from."""
    yield
    forking.stop()


def pytest_runtestloop(session: pytest.Session) -> None:
    """Keep the promise of `make test-fast`, in the processes that run tests."""
    config = session.config
    starts_workers = bool(getattr(config.option, "numprocesses", None)) and not hasattr(config, "workerinput")
    if config.getoption("--no-processes") and not starts_workers:
        processes.forbid()
