"""Parquet files of the store: Zstandard where it gains, a checksum on every page, the manifest in the footer.

Frames of files whose contracts differ are concatenated: a missing column is null, and time zones are converted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from holdfast.errors import InputError, IntegrityError
from holdfast.formatting import first_line
from holdfast.lazy_module import LazyModule
from holdfast.records import canonical_json

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
else:
    pl = LazyModule("polars")
    pa = LazyModule("pyarrow")
    pc = LazyModule("pyarrow.compute")
    pq = LazyModule("pyarrow.parquet")

FORMAT: Final = 1
"""Number of the layout of files and manifests; a reader refuses a larger one."""

FieldMetadata: TypeAlias = Mapping[str, Mapping[str, str]]
"""Metadata of columns by their names, such as {"delay": {"unit": "min"}}."""

_MANIFEST: Final = b"holdfast"
_LARGE: Final = 5_000
_SAMPLED: Final = 2_048
_FEW_BLOCKS: Final = 16_384
"""Bytes of columns that are written as they are: a disk has blocks of 4,096, and a context of Zstandard for each column
costs more time than the one or two that it saves.
"""


def encode(
    frame: pl.DataFrame, manifest: Mapping[str, str | int], fields: FieldMetadata = MappingProxyType({})
) -> memoryview:
    """Encode `frame` as the bytes of one Parquet file with `manifest` in its footer."""
    return encode_parts([frame], manifest, fields)


def encode_parts(
    parts: Sequence[pl.DataFrame], manifest: Mapping[str, Any], fields: FieldMetadata = MappingProxyType({})
) -> memoryview:
    """Encode `parts`, all of the same columns, as one Parquet file with a row group for each of them.

    `fields` is the metadata of columns, which other programs read; Holdfast itself reads the contract instead.
    """
    rows = sum(part.height for part in parts)
    footer = canonical_json({**manifest, "rows": rows, "format": FORMAT})
    row_groups = [_table(part) for part in parts]
    schema = pa.schema(
        [
            field.with_metadata(dict(fields[field.name])) if field.name in fields else field
            for field in row_groups[0].schema
        ],
        metadata={_MANIFEST: footer.encode()},
    )
    # Of a hundred rows a dictionary and statistics cost more time than the rows themselves, and more bytes.
    large = any(table.num_rows >= _LARGE for table in row_groups)
    repeating = _repeating(max(row_groups, key=len)) if large else []
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd" if sum(part.estimated_size() for part in parts) > _FEW_BLOCKS else "none",
        write_page_checksum=True,
        use_dictionary=repeating or False,
        column_encoding=_differences(schema, repeating) if large else None,
        write_statistics=large,
    ) as writer:
        for table in row_groups:
            writer.write_table(table, row_group_size=max(table.num_rows, 1))
    return memoryview(sink.getvalue())


def field_metadata(paths: Iterable[Path]) -> FieldMetadata:
    """Return the metadata of the columns of the first file that has any; files of older releases have none."""
    for path in paths:
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise damaged(path, error) from error
        found = {field.name: field.metadata for field in schema if field.metadata}
        if found:
            return {
                name: {key.decode(): value.decode() for key, value in each.items()}
                for name, each in found.items()
            }
    return {}


def _table(frame: pl.DataFrame) -> pa.Table:
    if frame.height >= _LARGE:
        return frame.to_arrow()
    # Polars converts the columns of a frame on its threads, and to wake them costs more than a small frame does.
    return pa.Table.from_struct_array(frame.to_struct().to_arrow())


def _repeating(table: pa.Table) -> list[str]:
    """Return the columns whose values repeat: a dictionary of ids or timestamps would be built and thrown away."""
    sampled = min(_SAMPLED, table.num_rows // 16)
    some = table.slice((table.num_rows - sampled) // 2, sampled)
    return [
        name
        for name, column in zip(some.column_names, some.columns, strict=True)
        if not pa.types.is_nested(column.type)
        and not pa.types.is_temporal(column.type)
        and pc.count_distinct(column).as_py() < 0.9 * some.num_rows
    ]


def _differences(schema: pa.Schema, repeating: Sequence[str]) -> dict[str, str]:
    """Encode ids and timestamps, which mostly rise, as differences: less to compress, and faster to read."""
    return {
        field.name: "DELTA_BINARY_PACKED"
        for field in schema
        if field.name not in repeating
        and (pa.types.is_int64(field.type) or pa.types.is_timestamp(field.type))
    }


def read(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    sha256: str | None = None,
    at_least: tuple[str, Any] | None = None,
    row_groups: Sequence[int] | None = None,
) -> pl.DataFrame:
    """Return the rows of one file, every page's checksum verified.

    Parameters
    ----------
    columns
        The columns to read, None for all; one that the file lacks is null, and has no dtype of its own.
    sha256
        The digest that the file must have; pages have checksums of their own, but its footer has none.
    at_least
        A column and a value: only rows that have this much in it; all rows where the file lacks the column.
    row_groups
        The row groups to read, None for all.

    Raises `IntegrityError` HF301 on a file that is not what it was.
    """
    try:
        data = path.read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise damaged(path, ValueError("its SHA-256 is not the one that was acknowledged"))
        has = pq.read_schema(pa.BufferReader(data)).names
        named = None if columns is None else [name for name in columns if name in has]
        filters = [(at_least[0], ">=", at_least[1])] if at_least and at_least[0] in has else None
        if row_groups is None:
            table = pq.read_table(
                pa.BufferReader(data), columns=named, filters=filters, page_checksum_verification=True
            )
        else:
            table = _of_row_groups(data, row_groups, named, filters)
        for name in columns or ():
            if name not in has:
                table = table.append_column(name, pa.nulls(table.num_rows))
        frame = pl.DataFrame(pl.from_arrow(table))
        return frame if columns is None else frame.select(columns)
    except (OSError, ValueError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise damaged(path, error) from error
    except pl.exceptions.PanicException as error:  # no Exception; Polars panics at text that is no UTF-8
        raise damaged(path, ValueError(str(error))) from error


def read_in_parts(
    path: Path,
    columns: Sequence[str],
    *,
    rows: int,
    sha256: str | None = None,
    row_groups: Sequence[int] | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of one file as `read` does, at most `rows` at a time: a large file is never in memory as a whole.

    The digest is verified before the first rows, the checksum of a page when it is read.
    """
    try:
        with path.open("rb") as file:
            if sha256 is not None and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise damaged(path, ValueError("its SHA-256 is not the one that was acknowledged"))
            source = pq.ParquetFile(file, page_checksum_verification=True)
            has = source.schema_arrow.names
            named = [name for name in columns if name in has]
            groups = list(range(source.num_row_groups)) if row_groups is None else list(row_groups)
            for batch in source.iter_batches(rows, groups, named, use_threads=False):
                table = pa.Table.from_batches([batch])
                for name in columns:
                    if name not in has:
                        table = table.append_column(name, pa.nulls(table.num_rows))
                yield pl.DataFrame(pl.from_arrow(table)).select(columns)
    except (OSError, ValueError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise damaged(path, error) from error
    except pl.exceptions.PanicException as error:  # as in `read`
        raise damaged(path, ValueError(str(error))) from error


def _of_row_groups(
    data: bytes,
    row_groups: Sequence[int],
    columns: list[str] | None,
    filters: list[tuple[str, str, Any]] | None,
) -> pa.Table:
    tested = [name for name, _, _ in filters or () if columns is not None and name not in columns]
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    table = file.read_row_groups(list(row_groups), None if columns is None else columns + tested)
    for name, _, value in filters or ():
        table = table.filter(pc.greater_equal(table[name], pa.scalar(value, table[name].type)))
    return table.drop_columns(tested)


def manifest(path: Path) -> dict[str, Any]:
    """Return the manifest in the file's footer; `IntegrityError` HF301 if there is none or a newer one."""
    try:
        metadata = pq.read_metadata(path)
        content = json.loads((metadata.metadata or {})[_MANIFEST])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise damaged(path, error) from error
    if content["format"] > FORMAT:
        raise IntegrityError(
            "HF301", f"{path.name} has format {content['format']}; this release reads up to {FORMAT}"
        )
    return {**content, "rows_in_footer": metadata.num_rows}


def damaged(path: Path, error: Exception) -> IntegrityError:
    """Return the error for a file that cannot be what was committed."""
    reason = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({first_line(error)})"
    return IntegrityError(
        "HF301", f"file {path.name} {reason}", state="nothing was changed", next_command="holdfast verify"
    )


def concat(frames: Sequence[pl.DataFrame], kinds: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return `frames`, at least one, one after the other.

    `kinds` names the dtypes of columns that are wanted in another.

    `InputError` HF212 names a column that has no common type.
    """
    wanted = _merged(frames) | dict(kinds)
    return pl.concat([_aligned(frame, wanted) for frame in frames])


def _merged(frames: Sequence[pl.DataFrame]) -> dict[str, pl.DataType]:
    """Return the columns of all `frames` in order of appearance, each in a dtype that fits all its values."""
    merged: dict[str, pl.DataType] = {}
    for frame in frames:
        for name, kind in frame.schema.items():
            before = merged.get(name, pl.Null())
            if kind == before or kind == pl.Null:
                merged.setdefault(name, kind)
            elif before == pl.Null or (_is_timestamp(before) and _is_timestamp(kind)):
                merged[name] = kind
            elif before.is_numeric() and kind.is_numeric():
                merged[name] = pl.Float64()
            else:
                raise _no_common_type(name, before, kind)
    return merged


def _aligned(frame: pl.DataFrame, wanted: Mapping[str, pl.DataType]) -> pl.DataFrame:
    return frame.select(
        _as(frame[name], kind) if name in frame.columns else pl.lit(None, kind).alias(name)
        for name, kind in wanted.items()
    )


def _as(values: pl.Series, kind: pl.DataType) -> pl.Series:
    found = values.dtype
    if found == kind:
        return values
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None and _is_timestamp(found):
        return values.dt.cast_time_unit(kind.time_unit or "us").dt.convert_time_zone(kind.time_zone)
    if found == pl.Null or (found.is_numeric() and kind == pl.Float64):
        return values.cast(kind)
    raise _no_common_type(values.name, found, kind)


def _is_timestamp(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.Datetime) and kind.time_zone is not None


def _no_common_type(name: str, one: pl.DataType, other: pl.DataType) -> InputError:
    return InputError(
        "HF212",
        f"column {name!r} is {one} in some files and {other} is wanted or is in others",
        state="no row was read",
        next_command="give the new column of the contract a name of its own",
    )
