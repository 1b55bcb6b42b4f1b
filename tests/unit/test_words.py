"""The words of docs/glossary.md are used everywhere, and the private words that they replaced are absent.

Checked are the names that our code and its tests define, their docstrings, comments and messages, and the pages for users.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]

WORDS: Final[dict[str, str]] = {
    "adopt adopted adopts readmit readmitted readmission": "re-register, re-registered",
    "asked asking": "requested, request",
    "beside": "alongside, next to, concurrently",
    "bitflip recut refill refilled retaint specimen specimens testimony": "the name of what it does",
    "catalogue catalogues": "catalog",
    "configuration configurations": "serving config",
    "cut cuts": "snapshot",
    "deed deeds": "operation",
    "foretell foretells foretold": "predict",
    "he him his who whom whoever nobody somebody": "the user, the operator, the caller, the process, no process",
    "instant instants moment moments": "timestamp",
    "learnt taught teach teaches teaching": "train on, trained on",
    "mend mended mending mends": "repair",
    "obedience obey obeyed obeys": "converge, convergence",
    "refuge refuges": "fallback version",
    "retreat retreats retreated": "failover",
    "said say saying says tell telling tells told": "report, emit, notify, declare",
    "seal sealed sealing seals unsealed": "page checksums",
    "spell spells": "period, interval, duration",
    "stone stones": "tombstones",
    "story stories": "event log, event",
    "struck": "failed",
    "took": "duration",
    "trouble troubles": "finding, violation, error",
    "weighed": "summarised",
}
"""Private words as they are written, and the word of the glossary."""

PHRASES: Final[dict[str, str]] = {
    r"\bback_out": "backout",
    r"\bfault[ _-]points?\b": "failpoint",
    r"\bheld to a level\b": "last resort",
    r"\b(?:keep|keeps|kept) apart\b": "quarantined",
    r"\bput aside\b": "quarantined",
    r"\bknown again\b": "re-registered",
    r"\blet in\b|\blets in\b|\blet through\b": "admitted, accepted",
    r"\blet go\b|\blets go\b": "expired, vacuumed",
    r"\broll_back|\broll-backs?\b": "rollback",
    r"\bstand-ins?\b": "fallback version",
    r"\bstrange log\b": "write-ahead log",
    r"\b(?:take|takes|taken|taking|took) back\b|\btake_back": "roll back, back out",
}
"""The same for private words that are more than one word."""

NAMES: Final[dict[str, str]] = {
    "answer answers answered answering": "prediction, response",
    "binary binaries": "runtime",
    "reach reaching": "impact",
    "watch watches watching watched": "bake",
}
"""Private words in a name, which are plain English in a sentence."""

ALLOWED: Final = re.compile(
    r"|".join(
        (
            r"plan_watch|PlanWatch|watch_plan",  # what SQLite's data_version is polled for
            # of the Open Inference Protocol
            r"_?binary_(?:data(?:_size)?|header_length|output|size|values)|_BINARY\b|_binary\b",
            r"binary_location",  # of Selenium
            r"^nobody$|`nobody`|//nobody@",  # the account of that name
            r"binary (?:classification|classifier|tensors?|data|extension|search|file)",
        )
    )
)
"""What a sentence or a name may hold although a part of it is a private word."""

_EACH: Final = {word: good for words, good in WORDS.items() for word in words.split()}
_ANY_PHRASE: Final = re.compile("|".join(PHRASES), re.IGNORECASE)
_ANY_WORD: Final = re.compile(r"(?<![A-Za-z])(?:" + "|".join(_EACH) + r")(?![A-Za-z])", re.IGNORECASE)
_IN_NAMES: Final = _EACH | {word: good for words, good in NAMES.items() for word in words.split()}


@dataclass(frozen=True, slots=True)
class Found:
    """A private word at a line of a file."""

    path: Path
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}: write {self.instead}"


def of_python(path: Path, source: str) -> Iterator[Found]:
    """Yield the private words in names, strings and comments of a module."""
    for part in _parts(ALLOWED.sub("", path.stem)):
        if part in _IN_NAMES:
            yield Found(path, 1, part, _IN_NAMES[part])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from of_text(path, node.value, node.lineno)
        for name in _defined(node):
            for part in _private_parts(name):
                yield Found(path, getattr(node, "lineno", 1), f"{name} ({part})", _IN_NAMES[part])
            yield from _of_phrases(path, name, getattr(node, "lineno", 1))
    if any(_is_suspect(row[row.index("#") :]) for row in source.splitlines() if "#" in row):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield from of_text(path, token.string, token.start[0])


def _is_suspect(text: str) -> bool:
    """Return True if a private word may be in `text`: a look at the whole is a hundred times as fast as one at each part."""
    return bool(_ANY_WORD.search(text) or _ANY_PHRASE.search(text))


def of_text(path: Path, text: str, line: int = 1) -> Iterator[Found]:
    """Yield the private words of a text that begins at `line`."""
    if not _is_suspect(text):
        return
    for number, row in enumerate(text.splitlines(), line):
        left = ALLOWED.sub("", row)
        for word in _ANY_WORD.findall(left):
            yield Found(path, number, word, _EACH[word.lower()])
        yield from _of_phrases(path, left, number)


def _of_phrases(path: Path, text: str, line: int) -> Iterator[Found]:
    if not _ANY_PHRASE.search(text):
        return
    for phrase, instead in PHRASES.items():
        if found := re.search(phrase, text, re.IGNORECASE):
            yield Found(path, line, found[0], instead)


@functools.cache
def _private_parts(name: str) -> list[str]:
    return [part for part in _parts(ALLOWED.sub("", name)) if part in _IN_NAMES]


def _parts(name: str) -> list[str]:
    """Split a name at underscores and capitals: `TookLong_again` is took, long, again."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _defined(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.arg(arg=name):
            yield name
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            yield name
        case ast.alias(asname=str(name)):
            yield name


def checked_files(root: Path) -> list[Path]:
    """Return the modules and pages whose words are checked."""
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("changes/*.md")]
    code = [*root.glob("src/**/*.py"), *root.glob("examples/**/*.py"), *root.glob("docs/*.py")]
    code += [path for path in root.glob("tests/**/*.py") if path.name != Path(__file__).name]
    pages += [*root.glob("src/**/*.md"), *root.glob("src/**/*.html")]
    return sorted({*pages, *code})


def find(root: Path) -> list[Found]:
    """Return every private word of the tree under `root`."""
    found: list[Found] = []
    for path in checked_files(root):
        of = of_python if path.suffix == ".py" else of_text
        found += of(path.relative_to(root), path.read_text(encoding="utf-8"))
    return found


def test_private_words_are_absent() -> None:
    found = find(ROOT)
    assert not found, f"{len(found)} private words:\n" + "\n".join(map(str, found[:100]))


PLANTED: Final = {
    "a function": ("def story_of(): ...", "story"),
    "a class": ("class BitFlipTrouble: ...", "trouble"),
    "an argument": ("def f(took_us): ...", "took"),
    "a variable": ("whoever = 1", "whoever"),
    "an attribute": ("self.told = 1", "told"),
    "an imported name": ("import holdfast as refuge", "refuge"),
    "a docstring": ('def f():\n    """Return what it says."""', "says"),
    "a comment": ("x = 1  # nobody knows", "nobody"),
    "a message": ("raise ValueError(f'{x} is kept apart')", "kept apart"),
    "a column": ("name = 'took_us'", "took"),
    "a phrase in a name": ("def roll_back(): ...", "roll_back"),
    "a name of another meaning": ("def binary_of(): ...", "binary"),
}


@pytest.mark.parametrize(("source", "word"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_word_is_found(tmp_path: Path, source: str, word: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "module.py").write_text(source + "\n")
    assert [word in each.word for each in find(tmp_path)] == [True]


def test_a_planted_word_is_found_in_a_page_and_in_the_name_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "testimony.py").touch()
    (tmp_path / "README.md").write_text("One line.\nThe whole Story.\n")
    assert [(each.path.name, each.line, each.word) for each in find(tmp_path)] == [
        ("README.md", 2, "Story"), ("testimony.py", 1, "testimony"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["binary classification", "a plan_watch", "the history", "undertook"])
def test_words_of_another_meaning_are_allowed(text: str) -> None:
    assert list(of_text(Path("page.md"), text)) == []
