"""The living specification reports what it promises."""

from __future__ import annotations

import runpy
import sys

import pytest

from holdfast.contract.row.compiler import compile_row
from holdfast.declaration import Model
from tests.support.processes import ROOT

FLIGHTS = ROOT / "examples" / "flights"


def declared(name: str, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.syspath_prepend(str(FLIGHTS))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    model = runpy.run_path(str(FLIGHTS / name))["model"]
    monkeypatch.delitem(sys.modules, "model", raising=False)
    assert isinstance(model, Model)
    return model


@pytest.mark.parametrize("name", ["model.py", "bad_push.py"])
def test_a_person_vouches_for_golden_queries_of_both_kinds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R83. That real versions answer them rightly is shown by the demonstration, which no failed gate lets on."""
    golden = declared(name, monkeypatch).golden
    assert len(golden) == 3
    assert all(query.owner for query in golden)
    assert min(query.bounds[1] for query in golden) < 0.5 < max(query.bounds[0] for query in golden)


def test_golden_rows_are_rows_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """They carry the figure that no request has, which is how a version that leans on it slips through."""
    model = declared("bad_push.py", monkeypatch)
    assert all(query.row["reported_delay"] is not None for query in model.golden)
    rowwise = compile_row(model.contract, request=True)
    names = {aggregate.name for aggregate in model.aggregates}
    for query in model.golden:
        assert rowwise({key: value for key, value in query.row.items() if key not in names}) == ()
