"""The form of a file is found in all its columns, and one column does not decide for another."""

from __future__ import annotations

import polars as pl
import pytest

from holdfast.contract.profile.infer_form import FileForm, infer_form


def form_of(
    separator: str = ";", decimal: str = "", **columns: list[str]
) -> tuple[FileForm, tuple[str, ...]]:
    return infer_form(pl.DataFrame(columns), separator=separator, zone="UTC", decimal=decimal)


def test_each_column_of_dates_can_have_an_order_of_its_own() -> None:
    form, questions = form_of(
        born=["1987/03/14", "1990/12/31"],
        at=["1.1.2026 05:00", "31.1.2026 06:00"],
        sent=["2026-01-02", "2026-01-03"],
    )
    assert form.csv.dates == ("yyyy/mm/dd", "d.m.yyyy", "yyyy-mm-dd")
    assert form.frame["at"].dt.to_string("%F %R").to_list() == ["2026-01-01 05:00", "2026-01-31 06:00"]
    assert not questions


def test_orders_that_one_feed_cannot_read_are_not_declared_together() -> None:
    form, _ = form_of(at=["31/1/2026", "30/1/2026"], other=["1/31/2026", "1/30/2026"])
    assert form.csv.dates == ("d/m/yyyy",)
    assert form.frame["other"].dtype == pl.String


@pytest.mark.parametrize(
    ("columns", "decimal", "question"),
    [
        ({"km": ["1.5", "20", "NA"], "amt": ["1,234", "5,678", "9"]}, ".", False),
        ({"km": ["1.5", "20.25", "3"], "amt": ["1,5", "2,5", "9"]}, ".", False),
        ({"km": ["1,5", "20", "NA"], "amt": ["1,234", "5,678", "9"]}, ",", False),
        ({"km": ["1,5", "20", "3"], "amt": ["1.234", "5.678", "9"]}, ",", False),
        ({"km": ["1", "20", "3"], "amt": ["1,234", "5,678", "9"]}, ".", True),
    ],
)
def test_one_column_of_commas_does_not_decide_for_a_file(
    columns: dict[str, list[str]], decimal: str, question: bool
) -> None:
    form, questions = form_of(**columns)
    assert form.csv.decimal == decimal
    assert questions == (
        ("the commas of 'amt' can be of decimals or of thousands: --decimal , or .",) * question
    )


def test_an_open_decimal_sign_can_be_given() -> None:
    form, questions = form_of(decimal=",", amt=["1,234", "5,678"])
    assert form.frame["amt"].to_list() == [1.234, 5.678]
    assert not questions


def test_a_missing_word_of_numbers_is_missing_in_texts_too() -> None:
    form, _ = form_of(km=["1", "NA", "2"], country=["NA", "DE", "FR"], town=["oslo", "-", "bergen"])
    assert form.missing_words == ("", "NA")
    assert form.frame["country"].to_list() == [None, "DE", "FR"]
    assert form.frame["town"].to_list() == ["oslo", "-", "bergen"]
    assert form.missing_texts == ("country",)


def test_a_label_of_words_can_have_missing_words() -> None:
    form, _ = form_of(late=["yes", "no", "NA"], country=["DE", "FR", "DE"])
    assert form.missing_words == ("", "NA")
    assert form.frame["late"].to_list() == ["yes", "no", None]


def test_a_text_of_missing_words_alone_in_texts_stays() -> None:
    form, _ = form_of(country=["NA", "DE", "FR"])
    assert form.missing_words == ("",)
    assert form.frame["country"].to_list() == ["NA", "DE", "FR"]
