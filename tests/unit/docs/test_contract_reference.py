"""The reference of the contract is generated from the code, and names what the code knows."""

from __future__ import annotations

from holdfast import contract
from holdfast.contract.schema.expressions import Expression
from holdfast.contract.schema.rule_ast import OPERATORS
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "reference" / "contract.md").read_text(encoding="utf-8")


def test_every_column_type_policy_operator_and_method_is_on_the_page() -> None:
    for kind in (
        "Number",
        "Integer",
        "Category",
        "Text",
        "Timestamp",
        "Boolean",
        "Label",
        "Contract",
        "Rule",
    ):
        assert f"### {kind}\n" in PAGE
    for policy in ("Reject", "Constant", "Median", "Mean", "Keep"):
        assert f"| `{policy}(" in PAGE
    for operator in OPERATORS:
        assert f"| `{operator}` |".replace("`|`", "`\\|`") in PAGE
    for method in (name for name in vars(Expression) if not name.startswith("_") and name != "node"):
        assert f".{method}(" in PAGE


def test_every_reason_that_rows_were_given_is_on_the_page() -> None:
    reported = {line[:12].strip() for line in (contract.__doc__ or "").splitlines() if line[11:12] == " "}
    assert {"missing", "type", "rule", "unique", "unit", "semantic"} <= reported
    for word in (
        "missing",
        "not_exact",
        "gap",
        "fold",
        "rule",
        "duplicate",
        "unique",
        "unit",
        "semantic",
        "fields",
        "json",
    ):
        assert f"`{word}`" in PAGE
