"""Conformance kits: the laws that a part of your own has to keep to be used in the place of one of ours.

Each function returns laws that are bound to your part. Give them to pytest, or call them one by one:

    @pytest.mark.parametrize("law", learner_laws(MyLearner()), ids=str)
    def test_my_learner(law: Law) -> None:
        law()

A law raises `AssertionError`, with the name of the part and of the law, when it is broken.
"""

from holdfast.testing.gate import GateCases, gate_laws
from holdfast.testing.law import Law
from holdfast.testing.learner import learner_laws
from holdfast.testing.sequence import Part, chart_laws, sequential_test_laws
from holdfast.testing.source import source_laws

__all__ = [
    "GateCases",
    "Law",
    "Part",
    "chart_laws",
    "gate_laws",
    "learner_laws",
    "sequential_test_laws",
    "source_laws",
]
