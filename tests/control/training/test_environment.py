"""The environment of a training is recorded with all that it requires, and can be installed again (R67, R101)."""

from __future__ import annotations

from importlib import metadata

import hypothesis
import pytest
from packaging.requirements import Requirement

from holdfast.control.training.environment import (
    NO_PACKAGE,
    OWN,
    differences,
    environment,
    installed,
    requirements,
)


def lines(text: str) -> list[Requirement]:
    """The requirements of a file, each as pip reads it."""
    return [Requirement(line) for line in text.splitlines() if not line.startswith("#")]


def test_every_line_is_a_requirement_that_what_is_installed_meets() -> None:
    found = lines(requirements("v3", environment()))
    assert {"lightgbm", "numpy", "onnx", "protobuf", "sqlalchemy", "threadpoolctl"} <= {
        each.name for each in found
    }
    for each in found:
        assert each.specifier.contains(metadata.version(each.name), prereleases=True), each


def test_nothing_that_an_installed_package_requires_is_left_to_the_resolver() -> None:
    """Otherwise pip would choose the newest release of it."""
    named = {each.name: each for each in lines(requirements("v3", environment()))}
    for name in named:
        for text in metadata.distribution(name).requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert needed.name.lower().replace("_", "-").replace(".", "-") in named, (name, text)


def test_the_package_of_a_users_learner_is_recorded_with_what_it_requires() -> None:
    with_it = environment(hypothesis.settings())
    assert with_it["hypothesis"] == metadata.version("hypothesis")
    assert "sortedcontainers" in with_it
    assert "hypothesis" not in environment()


def test_the_facts_that_no_package_index_has_are_comments() -> None:
    found = environment()
    assert found["python"]
    assert found["libc"] or found["machine"]
    text = requirements("v3", {**found, OWN: NO_PACKAGE})
    assert f"python {found['python']}" in text.splitlines()[0]
    assert f"# {OWN} was {NO_PACKAGE}" in text


@pytest.mark.parametrize("older", [{}, {"python": "3.11.2", "lightgbm": "0.1"}])
def test_a_version_that_recorded_fewer_packages_is_compared_by_those(older: dict[str, str]) -> None:
    found = differences(older, installed(list(older)))
    assert list(found) == sorted(older)


def test_this_environment_does_not_differ_from_itself() -> None:
    trained = environment(hypothesis.settings())
    assert differences(trained, installed(list(trained))) == {}
    assert differences({**trained, "numpy": "1.0"}, installed(list(trained))) == {
        "numpy": ("1.0", metadata.version("numpy"))
    }
