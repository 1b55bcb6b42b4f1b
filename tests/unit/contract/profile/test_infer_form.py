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
    ("columns", "decimal"),
    [
        ({"km": ["1.5", "20", "NA"], "amt": ["1,234", "5,678", "9"]}, "."),
        ({"km": ["1,5", "20", "NA"], "amt": ["1,234", "5,678", "9"]}, ","),
        ({"km": ["1,5", "20", "3"], "amt": ["1.234", "5.678", "9"]}, ","),
        ({"km": ["1,5", "20", "3"], "amt": ["1.234,50", "5.678,00", "9"]}, ","),
        ({"km": ["1", "20", "3"], "amt": ["1,234", "5678,123", "9"]}, ","),
        ({"km": ["1", "20", "3"], "amt": ["0,234", "5,678", "9"]}, ","),
    ],
)
def test_one_column_of_commas_does_not_decide_for_a_file(columns: dict[str, list[str]], decimal: str) -> None:
    form, questions = form_of(**columns)
    assert form.csv.decimal == decimal
    assert not questions
    assert all(dtype.is_numeric() for dtype in form.frame.dtypes)


@pytest.mark.parametrize(
    ("separator", "text", "value", "thousands"),
    [
        (";", "3.764,00", 3764.0, "."),
        (",", "1,234.50", 1234.5, ","),
        (";", "1.234.567", 1234567, "."),
        (",", "1,234,567", 1234567, ","),
        (";", "12'345.5", 12345.5, "'"),
        (";", "1 234,5", 1234.5, " "),
        (";", "1\u00a0234,5", 1234.5, "\u00a0"),
        (";", "-1\u202f234", -1234, "\u202f"),
    ],
)
def test_groups_of_digits_are_numbers(separator: str, text: str, value: float, thousands: str) -> None:
    form, questions = form_of(separator, eur=[text, "9"])
    assert form.frame["eur"].to_list() == [value, 9]
    assert (form.csv.thousands, questions) == (thousands, ())


@pytest.mark.parametrize("separator", [";", ","])
def test_a_number_of_two_readings_is_a_question_that_names_both(separator: str) -> None:
    _, questions = form_of(separator, km=["1", "20"], amt=["1,234", "987"])
    assert questions == ("'1,234' of 'amt' is 1.234 with --decimal , and 1234 with --decimal .",)
    assert form_of(separator, decimal=".", amt=["1,234", "987"])[0].frame["amt"].to_list() == [1234, 987]


def test_a_column_in_another_form_than_the_others_is_a_question() -> None:
    columns = {"km": ["1.5", "20.25", "3"], "amt": ["1,5", "2,5", "9"]}
    _, questions = form_of(**columns)
    assert questions == (
        "'1,5' of 'amt' is no number as the other columns write them; --decimal . leaves it a text",
    )
    assert form_of(decimal=".", **columns)[0].frame.dtypes == [pl.Float64, pl.String]


def test_a_point_is_of_decimals_only_where_commas_separate() -> None:
    assert form_of(",", kg=["1.234", "2.345"])[0].frame["kg"].to_list() == [1.234, 2.345]
    assert form_of(";", kg=["1.234", "2.345"])[1] == (
        "'1.234' of 'kg' is 1234 with --decimal , and 1.234 with --decimal .",
    )


def test_words_of_true_and_false_are_booleans_in_every_column() -> None:
    form, _ = form_of(damage=["Yes", "no", ""], paid=["ja", "nein", "JA"], town=["oslo", "bodo", "oslo"])
    assert form.frame.dtypes == [pl.Boolean, pl.Boolean, pl.String]
    assert form.frame["damage"].to_list() == [True, False, None]
    assert (form.csv.true, form.csv.false) == (
        ("true", "1", "1.0", "yes", "ja"),
        ("false", "0", "0.0", "no", "nein"),
    )


@pytest.mark.parametrize(("ones", "zeros", "dtype"), [(50, 50, pl.Boolean), (1, 99, pl.Int64)])
def test_zeros_and_ones_are_booleans_if_counts_would_have_a_two(
    ones: int, zeros: int, dtype: pl.DataType
) -> None:
    form, _ = form_of(fines=["1"] * ones + ["0"] * zeros)
    assert form.frame["fines"].dtype == dtype


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
    assert form.frame["late"].to_list() == [True, False, None]


def test_a_text_of_missing_words_alone_in_texts_stays() -> None:
    form, _ = form_of(country=["NA", "DE", "FR"])
    assert form.missing_words == ("",)
    assert form.frame["country"].to_list() == ["NA", "DE", "FR"]
