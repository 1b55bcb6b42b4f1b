"""Error codes can be alerted on: each is raised, has one sentence, and has at most 25 raise sites."""

from __future__ import annotations

import ast
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import CODES, HoldfastError, InputError

MOST_SITES = 25
SOURCE = Path(holdfast.__file__).parent


def sites_of(source: Path) -> Counter[str]:
    """Count the string constants that are an error code, by code; the table of codes is left out."""
    found: Counter[str] = Counter()
    for path in source.rglob("*.py"):
        tree = ast.parse(path.read_text())
        keys = {id(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
        for node in ast.walk(tree):
            if path.name == "errors.py" and id(node) in keys:
                continue
            if isinstance(node, ast.Constant) and re.fullmatch(r"HF\d{3}", str(node.value)):
                found[str(node.value)] += 1
    return found


def test_every_code_is_raised_at_a_few_places() -> None:
    sites = sites_of(SOURCE)
    assert {code: count for code, count in sites.items() if count > MOST_SITES} == {}
    assert sorted(sites) == sorted(CODES)


def test_too_many_sites_are_counted(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("CODES = [" + '"HF101", ' * 26 + '"HF9", 101]')
    assert sites_of(tmp_path) == {"HF101": 26}


def test_statistics_raise_no_code_for_a_wrong_argument() -> None:
    """A wrong argument of a pure function is a `ValueError`: no user input causes it."""
    assert set(sites_of(SOURCE / "stats")) == {"HF401"}


def test_codes_have_one_sentence_each() -> None:
    assert len(set(CODES.values())) == len(CODES)
    assert all(re.fullmatch(r"[A-Z`][^.]*\.", meaning) for meaning in CODES.values())


def test_an_unknown_code_is_a_defect() -> None:
    with pytest.raises(ValueError, match="unknown error code 'HF999'"):
        InputError("HF999", "x")


def test_an_error_crosses_processes_complete() -> None:
    error = InputError("HF101", "what", state="state", next_command="next")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, HoldfastError)
    assert again.as_dict() == error.as_dict()
