"""Whatever a sender writes as a unit has a conversion in finite doubles or none, and never raises."""

from __future__ import annotations

import math
import random

import pytest

from holdfast.contract import ColumnFacts, Contract, Number, Timestamp
from holdfast.contract.schema import units
from holdfast.contract.schema.source_metadata import column_conversions
from holdfast.contract.schema.units import SAME, find_conversion, is_same_unit
from holdfast.errors import InputError

pytestmark = pytest.mark.unit

WORDS = (
    "ppm", "%", "Ym", "ym", "m", "mile", "degF", "degC", "delta_degC", "bit", "rad", "dB", "count", "USD", "h", "kg", "octave",
    "decibel", "neper", "pH", "permille", "µ_0", "e", "speed_of_light", "quettameter", "planck_length",
)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (" ".join(["ppm^-9"] * 6), "1"),
        ("Ym^9*Ym^9/m^9/m^8", "mi"),
        ("permille*µ_0**-8", "1"),
        ("dimensionless decibel^-1", "kg"),
        ("byte/octave", "m^-3"),
        (" ".join(["ppm^9"] * 6), "1"),
        ("ym^9*ym^6", "m^15"),
    ],
    ids=["overflow", "lengths", "a constant", "logarithm", "octave", "underflow", "below a normal double"],
)
def test_a_unit_without_a_factor_in_doubles_does_not_convert(source: str, target: str) -> None:
    assert find_conversion(source, target) is None
    assert not is_same_unit(source, target)
    columns = Timestamp("at", tz="UTC"), Number("size", unit=target)
    contract = Contract(*columns, key="at", event_time="at")
    with pytest.raises(InputError, match="does not convert") as refused:
        column_conversions(contract, {"size": ColumnFacts(unit=source)})
    assert refused.value.code == "HF202"


def test_units_by_their_grammar_convert_in_finite_doubles_or_not_at_all() -> None:
    drawn = random.Random(12)
    converted = 0
    for _ in range(3000):
        source = unit(drawn)
        found = find_conversion(source, drawn.choice(["1", "m", "%", "kg", "degC", unit(drawn)]))
        if found is None or found == SAME:
            continue
        converted += 1
        assert found.numerator != 0, source
        assert all(map(math.isfinite, (found.numerator, found.addend, found.denominator))), source
    assert converted > 20


def unit(drawn: random.Random) -> str:
    """Up to six words with powers, by the grammar of the texts that are passed to Pint."""

    def power() -> str:
        return drawn.choice(["", "", f"^{drawn.randint(1, 9)}", f"**-{drawn.randint(1, 9)}"])

    words = [drawn.choice(WORDS) + power() for _ in range(drawn.choice([1, 1, 2, 3, 6]))]
    return drawn.choice(["", "", "1/"]) + "".join(
        word + (drawn.choice(" */") if place < len(words) - 1 else "") for place, word in enumerate(words)
    )


def test_what_pint_keeps_of_parsed_units_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender can write units without end; Pint kept each for ever, some 2 kB of it."""
    monkeypatch.setattr(units, "_MOST_PARSED", 100)
    sizes = []
    for number in range(600):
        first, second, third = number % 9 + 1, number // 9 % 9 + 1, number // 81 + 1
        assert units.find_conversion(f"km^{first} h^-{second} J^{third}", "mi") is None
        sizes.append(units._count_parsed())
    assert max(sizes) <= 120, "a unit adds some entries"
    assert min(sizes[300:]) < 50, "it was forgotten"
    for prefix in ("kilo", "mega", "giga", "tera", "milli", "micro", "nano", "pico"):
        for unit in ("meter", "gram", "second", "joule", "watt", "volt", "newton", "pascal", "liter", "byte"):
            assert units.find_conversion(prefix + unit, unit) is not None
            assert units._count_parsed() <= 120
    units.find_conversion.cache_clear()
    assert units.find_conversion("mi", "km") == units.Conversion(25146.0, 0.0, 15625.0)
