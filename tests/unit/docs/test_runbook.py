"""Each kind of problem has a line that states what happened and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from holdfast.records import PROBLEMS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "being-notified.md"


def test_each_problem_has_a_line_with_its_severity_and_what_to_do() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+?) \| (.+) \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert [(kind, severity) for kind, severity, *_ in rows] == [
        (kind, str(severity)) for kind, severity in PROBLEMS.items()
    ]
    for _kind, _severity, happened, to_do in rows:
        assert len(happened) > 20
        assert to_do
