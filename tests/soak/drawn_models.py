"""Model files drawn at random from the public declarations, each with a delivery of rows for its feeds.

Most arguments have values that a user would write. A few are junk: of another type, out of any range, or the name of a column
of another type. So some files are right, and the others are wrong in one or a few places.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

START: Final = datetime(2013, 9, 1, tzinfo=UTC)
_DAYS: Final = 30
_ROWS: Final = 240
_KINDS: Final = ("Number", "Integer", "Category", "Text", "Timestamp", "Boolean")
_WORDS: Final = ("oslo", "bergen", "Ålesund", "x y", "true", "0")
_ZONES: Final = ("UTC", "Europe/Oslo", "America/New_York", "Asia/Kathmandu")
_DURATIONS: Final = ("'1d'", "'6h'", "'90min'", "timedelta(days=2)", "'1500ms'", "timedelta(hours=3)")
_JUNK: Final = (
    "None", "True", "3", "-1", "0", "1.5", "-0.5", "'x'", "''", "()", "(1,)", "['x']", "[]", "{'a': 1}", "{}", "b'x'",
    "float('nan')", "float('inf')", "-float('inf')", "1e300", "5e-324", "10**30", "2**31", "2**63", "-2**63", "1j",
    "'9999999d'", "'-1d'", "timedelta(days=-1)", "'0s'", "timedelta(0)", "'1ms'", "'36500d'", "timedelta.max",
    "timedelta.min", "object()", "int", "lambda value: value", "col('id')", "datetime(2013, 9, 5)", "'id'", "'at'",
    "'bought'", "'_source'", "'_batch'", "'a' * 70", "'\\ud800'", "'\\x00'",
)  # fmt: skip
_HEAD: Final = """from datetime import UTC, datetime, timedelta

import holdfast
from holdfast import *
from holdfast import col


class Own:
    name = "own"
    parameters = {{"depth": 3}}

    def fit(self, x, y, names, *, seed, weights=None):
        {body}


class Unweighted:
    name, parameters = "unweighted", {{}}

    def fit(self, x, y, names, *, seed):
        return LogisticRegression().fit(x, y, names, seed=seed)


"""
_BODIES: Final = (
    "return LogisticRegression().fit(x, y, names, seed=seed, weights=weights)",
    "return None",
    "return b'graph'",
    "raise ValueError('no fit')",
    "raise SystemExit(0)",
    "raise type('Own', (BaseException,), {})('stop')",
    "raise GeneratorExit",
    "import onnx; return onnx.ModelProto()",
    "return LogisticRegression().fit(x[:, :1], y, names[:1], seed=seed)",
)


@dataclass(frozen=True)
class DrawnModel:
    """The text of a model file, and rows by feed. `own_learner` is true if a learner of the file may fail by itself."""

    text: str
    rows: dict[str, list[dict[str, Any]]]
    own_learner: bool


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str
    text: str
    words: tuple[str, ...] = _WORDS
    low: float = 0.0
    high: float = 90.0
    may_be_missing: bool = False


@dataclass
class _Writer:
    draw: random.Random
    values: random.Random
    """Of the rows: another one, so that Hypothesis makes the declaration smaller and not the rows."""
    junk: float
    columns: list[_Column] = field(default_factory=list)
    own_learner: bool = False
    names: Iterator[str] = field(default_factory=lambda: (f"'n{number}'" for number in count()))

    # Parts of text -------------------------------------------------------------------------------

    def one(self, *choices: str) -> str:
        """One of `choices`, rarely junk instead."""
        return self.draw.choice(_JUNK if self.draw.random() < self.junk else choices)

    def some(self, share: float) -> bool:
        return self.draw.random() < share

    def call(self, declared: str, /, *given: str, **optional: Sequence[str]) -> str:
        """A call of `declared`; of the `optional` arguments each with a probability of a quarter."""
        also = [f"{key}={self.one(*choices)}" for key, choices in optional.items() if self.some(0.25)]
        return f"{declared}({', '.join([*given, *also])})"

    def several(self, least: int, most: int, make: Any) -> str:
        made = [make() for _ in range(self.draw.randint(least, most))]
        return f"({''.join(each + ', ' for each in made)})"

    def column(self, *kinds: str) -> str:
        """The name of a column, mostly of one of `kinds`."""
        fitting = [each.name for each in self.columns if not kinds or each.kind in kinds]
        if not fitting and kinds:
            fitting = ["at"] if "Timestamp" in kinds else ["id"]
        if self.some(2 * self.junk):
            fitting = [*(each.name for each in self.columns), "recent", "absent", "bought"]
        return self.one(*map(repr, fitting))

    # Columns -------------------------------------------------------------------------------------

    def policy(self, kind: str) -> str:
        """A missing policy for a column of `kind`, or nothing."""
        if self.some(0.6):
            return ""
        flag = ("True", "False")
        fills = {
            "Number": ("'median'", "'mean'", "'keep'", "Constant(0)", self.call("Median", flag=flag)),
            "Integer": ("'median'", "'keep'", "Constant(3)", self.call("Keep", flag=flag)),
            "Category": (
                "'keep'",
                "Constant('oslo')",
                "Constant('new', flag=True)",
                self.call("Keep", flag=flag),
            ),
            "Text": ("'keep'", "Constant('none')", "Reject()"),
            "Timestamp": ("'keep'", "Keep()", "'reject'"),
            "Boolean": ("'keep'", "Constant(True)", "Keep(flag=True)"),
        }
        return f"missing={self.one(*fills[kind])}"

    def declared_column(self, name: str) -> _Column:
        kind = self.draw.choice(_KINDS)
        given = [repr(name)]
        policy = self.policy(kind)
        words, low, high = _WORDS, 0.0, 90.0
        optional: dict[str, Sequence[str]] = {"semantic": ("'price'", "'size'")}
        match kind:
            case "Number":
                given.append(f"unit={self.one(repr('1'), repr('min'), repr('mi'), repr('USD'))}")
                if self.some(0.4):
                    low, high = self.draw.choice([(0.0, 100.0), (-5.0, 5.0), (1.0, 1.0), (0.0, 1e9)])
                    given += [f"low={self.one(repr(low))}", f"high={self.one(repr(high))}"]
                optional |= {"window": ("'5min'", "'1d'")}
            case "Integer":
                optional |= {
                    "low": ("0", "-10"),
                    "high": ("100", "2**40"),
                    "unit": ("'1'", "'s'"),
                    "window": ("'1h'",),
                }
            case "Category":
                if self.some(0.5):
                    words = tuple(self.draw.sample(_WORDS, self.draw.randint(1, 4)))
                    given.append(f"values={self.one(repr(words))}")
                    optional |= {
                        "unseen": ("'reject'", "'other'"),
                        "aliases": (f"{{'old': {words[0]!r}}}", f"{{{words[0]!r}: 'old'}}"),
                    }
            case "Text":
                optional |= {"max_length": ("1", "300"), "pattern": ("'.*'", "'[a-z]+'")}
            case "Timestamp":
                given.append(f"tz={self.one(*map(repr, _ZONES))}")
                optional |= {
                    "naive": ("'local'", "'reject'"),
                    "low": ("'2013-01-01'",),
                    "high": ("'2014-01-01'",),
                }
        text = self.call(kind, *given, *filter(None, (policy,)), **optional)
        return _Column(
            name, kind, text, words, low, high, may_be_missing=bool(policy) and "eject" not in policy
        )

    def value(self, column: _Column) -> Any:
        if column.may_be_missing and self.values.random() < 0.2:
            return None
        match column.kind:
            case "Number":
                return round(self.values.uniform(column.low, column.high), 3)
            case "Integer":
                return self.values.randint(0, 90)
            case "Category":
                return self.values.choice(column.words)
            case "Text":
                return self.values.choice(("a", "b", "long text"))
            case "Timestamp":
                return _stamp(START + timedelta(minutes=self.values.randint(0, 10_000)))
            case _:
                return self.values.random() < 0.5

    # Expressions ---------------------------------------------------------------------------------

    def condition(self, depth: int = 2) -> str:
        """An expression that is true or false of a row."""
        number, other = self.column("Number", "Integer"), self.column("Number", "Integer")
        timestamp = f"col({self.column('Timestamp')})"
        match self.draw.randrange(8 if depth else 4):
            case 0:
                return f"(col({number}) {self.draw.choice(('<', '>=', '!='))} {self.one('5', '80.5', '0')})"
            case 1:
                words = self.one("('oslo', 'b')", "['a']")
                return f"col({self.column('Category', 'Text')}).is_in({words})"
            case 2:
                return f"({timestamp} > {self.one(repr('2013-09-05T00:00:00Z'), 'datetime(2013, 9, 5, tzinfo=UTC)')})"
            case 3:
                return f"(col({self.column('Boolean')}) == {self.one('True', 'False')})"
            case 4:
                return f"~{self.condition(depth - 1)}"
            case 5:
                return f"({self.condition(depth - 1)} {self.draw.choice('&|')} {self.condition(depth - 1)})"
            case 6:
                return f"(col({number}) {self.draw.choice('+-*/')} col({other}) < {self.one('50', '1e9')})"
            case _:
                return f"({timestamp} - col('at') < {self.one(repr('3d'), 'timedelta(days=1)')})"

    def rule(self, kind: str) -> str:
        return f"{kind}({self.one(next(self.names))}, {self.condition()})"

    # Parts of the model --------------------------------------------------------------------------

    def feature(self) -> str:
        """A feature; it has a name of its own, so that no two have one name."""
        name = f"name={self.one(next(self.names))}"
        numbers = ("Number", "Integer", "Boolean")
        has_numbers = any(each.kind in numbers for each in self.columns)
        has_words = any(each.kind == "Category" for each in self.columns)
        number, other = self.column(*numbers), self.column(*numbers)
        fills = ("'median'", "Mean(flag=True)", "Constant(0)")
        edges = ("edges=(1.0, 2.0)", "quantiles=4", "edges=(1, 2, 30)", "quantiles=100", "edges=(1, 1e39)")
        kind = self.draw.randrange(11)
        if (kind < 8 and not has_numbers) or (kind in (8, 9) and not has_words):
            kind = 10
        match kind:
            case 0 | 1:
                return self.call("Passthrough", number, name)
            case 2:
                return self.call("Impute", number, name, missing=fills)
            case 3:
                return self.call("Log", number, name)
            case 4:
                return self.call("Clip", number, name, f"low={self.one('0', '2.5')}", high=("50", "1e12"))
            case 5:
                return self.call("Bucket", number, name, self.draw.choice(edges))
            case 6:
                return self.call("Ratio", number, other, name, by_zero=("0.0", "1e40", "-1"))
            case 7:
                return self.call("Difference", number, other, name)
            case 8 | 9:
                return self.call("Ordinal", self.column("Category"), name, at_least=("1", "5", "1000"))
            case _:
                return self.call(
                    self.draw.choice(("Hour", "Weekday", "Month")), self.column("Timestamp"), name
                )

    def learner(self) -> str:
        kind = self.draw.randrange(8)
        if kind < 3:
            return self.call(
                "LightGBM", f"trees={self.one('2', '3')}", f"min_rows_per_leaf={self.one('5', '100')}",
                leaves=("2", "7", "131072"), learning_rate=("0.1", "1.0", "1e-300"), l2=("0.0", "1e300"),
                feature_share=("0.5", "1.0", "1e-9"), threads=("1", "0"),
            )  # fmt: skip
        if kind < 6:
            return self.call(
                "LogisticRegression", c=("0.1", "1e300", "1e-300"), iterations=("1000", "1", "10**9")
            )
        self.own_learner = True
        return self.one(
            "Own()", "Own()", "Unweighted()", "Own", "GroupMean(by=(Hour('at'),))", "Own().fit", "print"
        )

    def aggregate(self, feeds: Sequence[str]) -> str:
        """An aggregate over one of `feeds`, with a name of its own."""
        return self.call(
            "Aggregate",
            self.one(next(self.names)),
            f"over={self.one(*map(repr, feeds))}",
            f"by={self.column('Category', 'Text', 'Integer')}",
            f"value={self.column('Number', 'Integer', 'Boolean')}",
            f"known_at={self.one(repr('at'), self.column('Timestamp'))}",
            f"window={self.one(repr('2d'), repr('6h'), 'timedelta(days=1)')}",
            f"every={self.one(repr('1h'), repr('30min'))}",
            available_after=_DURATIONS,
            agg=("'mean'", "'count'", "'last'"),
        )

    def discard(self) -> str:
        by = (self.column("Category", "Boolean"), "'_source'")
        return self.call("DiscardBudget", self.one("0.9", "1.0"), at_least_rows=("1",), by=by)

    def cap(self) -> str:
        one = self.column("Category", "Boolean")
        if self.some(0.3):
            return self.call(
                "Cap", self.one("'at'", f"('at', {one})"), self.one("50"), f"every={self.one(*_DURATIONS)}"
            )
        return self.call(
            "Cap", self.one(one, f"({one}, {self.column('Text')})", "'_source'"), self.one("50", "0.9")
        )

    def weights(self) -> str:
        factors = self.one("{'oslo': 2.0, True: 0.5}", "{'a': 1e300}", "{'a': 5e-324}", "{'visits': 0}")
        by = self.one(self.column("Category", "Boolean", "Text"), "'_batch'", "'_source'")
        return self.call("Weights", by, factors, default=("1.0", "0.5", "1e300"))

    def selection(self) -> str:
        """A selection of some of its parts."""
        parts = {
            "filters": lambda: self.rule("Filter"),
            "forbidden": lambda: self.rule("Forbidden"),
            "discard": self.discard,
            "caps": self.cap,
            "quotas": lambda: self.call(
                "Quota",
                self.column("Category", "Boolean"),
                self.one("1", "10**9"),
                otherwise=("'warn'", "'refuse'"),
            ),
            "weights": self.weights,
            "sources": lambda: (
                f"Source({self.one(next(self.names))}, {self.one(repr('v*'), repr(('x*', '[')))})"
            ),
        }
        chosen = [f"{name}={self.several(1, 2, make)}" for name, make in parts.items() if self.some(0.25)]
        if self.some(0.2):
            chosen.append(f"sample=Sample({self.one('0.8', '1.0', '1e-9')})")
        return f"Selection({', '.join(chosen)})"

    def expectations(self) -> str:
        """What a feed expects of its deliveries."""
        column = self.column()
        return self.call(
            "Expectations",
            rows=(
                "Volume(at_least=1)",
                "Volume(at_most=10**6, weekdays=True)",
                "Volume(deviation=Limits(error=0.5))",
            ),
            interval=_DURATIONS,
            grace=_DURATIONS,
            invalid_rows=("Limits(error=0.9)", "Limits(critical=1)"),
            completeness=("Completeness('30d')", f"Completeness('1d', by={self.column('Category')})"),
            sequence=(self.column("Integer"),),
            granularity=(f"Granularity({self.one(*_DURATIONS)}, level='warning')",),
            references=(
                f"Reference({column}, 'visits', {column})",
                f"Reference({column}, 'elsewhere', 'id')",
            ),
            composition=(f"Composition({self.column('Category')}, at_most={{'oslo': 1.0}})",),
            top_value_share=(f"TopValueShare({column}, Limits(warning=0.1))",),
            early_labels=("'refuse'", "'allow'"),
            max_future=_DURATIONS,
            duplicates=("'rows'", "'stale'"),
            drift=("True", "False"),
        )

    def golden(self, requested: Sequence[_Column]) -> str:
        """A golden query with values for `requested`."""
        row = {each.name: self.value(each) for each in requested}
        if row.get("id") is not None and self.some(0.9):
            row["id"] = 1 if "Integer" in self.columns[0].text else "n1"
        bounds = self.one("between=(0.0, 1.0)", "value=0.5, tolerance=0.5")
        return self.call(
            "GoldenQuery", self.one(next(self.names)), self.one(repr(row)), bounds, owner=("'ann'",)
        )

    def canary(self) -> str:
        shares = ("1.0", "1.5", "1e9")
        return self.call(
            "Canary", steps=("(1, 10, 100)", "(50, 100)"), alpha=("0.01", "0.2"), units_per_step=("1", "10**9"),
            error_margin=shares, latency_margin=shares, latency_quantile=("None", "0.5"), timeout=_DURATIONS,
            slices=(f"({self.column('Category')},)",), shadow=("Shadow()", f"Shadow(share={self.one('50')})"), bake=_DURATIONS,
            max_drill_age=_DURATIONS, newer_version=("'queue'", "'supersede'"), rate_margin=("None", "2.0"),
        )  # fmt: skip

    def contract(self, *keys: str) -> str:
        """The contract of all columns, with one of `keys`."""
        rules = self.several(1, 2, lambda: self.rule("Rule"))
        delay = self.one("'1h'", *_DURATIONS)
        label = self.call("Label", self.one("'bought'"), f"delay={delay}", missing=("'keep'", "'reject'"))
        return self.call(
            "Contract",
            "*columns",
            f"key={self.one(*keys)}",
            f"event_time={self.one(repr('at'))}",
            f"label={label}",
            slices=(f"({self.column('Category', 'Boolean')},)",),
            rules=(rules,),
            unique=(f"[({self.column('Category')}, {self.column('Timestamp')})]",),
        )

    def model(self, feeds: Sequence[str]) -> str:
        """The model over all columns and `feeds`."""
        hook = ("'h'", self.one("'http://127.0.0.1:9/'"))
        objective = self.draw.choice((("'auc'", "at_least=0.5"), ("'brier'", "at_most=0.3")))
        gates = {
            "confidence": ("0.9",),
            "labelled_rows": ("10",),
            "size_growth": ("1.5",),
            "load_seconds": ("1.0",),
        }
        some = "Contract(*columns[:4], key='id', event_time='at', label=contract.label)"
        heuristic = self.one("(Hour('at'),)", f"(Weekday('at'), {self.feature()})")
        return self.call(
            "Model",
            self.one("'shop'"),
            "examples=visits",
            f"feeds=({', '.join(feeds)},)",
            f"contract={self.one(*['contract'] * 5, some)}",
            f"features={self.several(1, 4, self.feature)}",
            f"learner={self.learner()}",
            f"heuristic=GroupMean(by={heuristic})",
            aggregates=(self.several(1, 2, lambda: self.aggregate(feeds)),),
            holdout=_DURATIONS,
            golden=(self.several(1, 2, lambda: self.golden(self.columns)),),
            gates=(self.call("Gates", **gates),),
            rollout=(self.canary(),),
            objective=(self.call("Objective", *objective),),
            selection=(self.selection(),),
            hooks=(f"({self.call('Hook', *hook, timeout=(repr('5s'),), veto=('True',))},)",),
            drills=(self.call("Drills", interval=_DURATIONS, kinds=("('rollback',)",)),),
            recover_within=_DURATIONS,
            snapshot_quality=("0.5", "1.0", "1"),
        )


def draw_model(draw: random.Random, junk: float | None = None) -> DrawnModel:
    """Return a model file and its deliveries, drawn by `draw`; `junk` is the share of arguments that are junk."""
    values = random.Random(draw.randrange(1_000))
    writer = _Writer(draw, values, draw.choice((0.0, 0.005, 0.02, 0.05)) if junk is None else junk)
    own = [writer.declared_column(f"c{number}") for number in range(draw.randint(2, 6))]
    key = _Column("id", *draw.choice((("Integer", "Integer('id')"), ("Text", "Text('id')"))))
    at = _Column("at", "Timestamp", f"Timestamp('at', tz={writer.one(*map(repr, _ZONES))})")
    writer.columns = [key, at, *own]
    is_late = writer.some(0.3)
    visits = writer.call(
        "Feed",
        "'visits'",
        "contract",
        expects=(writer.expectations(),),
        period=_DURATIONS,
        group=("'g'",),
        corrections=("'first'",),
        missing_words=("('', 'NA')",),
    )
    lines = [
        f"columns = ({', '.join(each.text for each in writer.columns)},)",
        f"contract = {writer.contract(*([repr('id')] if is_late else [repr('id'), repr(('id', 'at'))]))}",
        f"visits = {visits}",
    ]
    feeds, rows = ["visits"], {"visits": _rows(writer)}
    if is_late:
        labels = (
            "Contract(*columns[:2], key=('id', 'at'), event_time='at', label=Label('bought', delay='0s'))"
        )
        lines.append(f"late = Feed('late', {labels}, labels_for={writer.one(repr('visits'))})")
        feeds.append("late")
        rows["late"] = [
            {"id": row["id"], "at": row["at"], "bought": values.random() < 0.5} for row in rows["visits"][:40]
        ]
    lines.append(f"model = {writer.model(feeds)}\n")
    text = _HEAD.format(body=draw.choice(_BODIES)) + "\n".join(lines)
    return DrawnModel(text, rows, writer.own_learner)


def _rows(writer: _Writer) -> list[dict[str, Any]]:
    rows = []
    for number in range(_ROWS):
        row = {each.name: writer.value(each) for each in writer.columns}
        at = START + timedelta(days=number * _DAYS / _ROWS)
        identity: Any = number if "Integer" in writer.columns[0].text else f"n{number}"
        rows.append(row | {"id": identity, "at": _stamp(at), "bought": writer.values.random() < 0.5})
    return rows


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def as_json_lines(rows: Sequence[dict[str, Any]]) -> str:
    """Return `rows` as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)
