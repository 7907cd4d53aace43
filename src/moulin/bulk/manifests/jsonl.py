"""JSONL, parquet and CSV with a path in each row: `{"audio": …}`, and `id`, `offset`, `duration` where given."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from moulin.bulk.manifests.columns import NUMBERS, TEXTS, recordings_of
from moulin.bulk.pyarrow_here import pa
from moulin.errors import OptionsError, first_line
from moulin.manifests.lhotse_entry import first_entry
from moulin.manifests.lines import read_lines
from moulin.quoting import cut

_BLOCK_BYTES = 8 << 20


def read_jsonl(file: Path) -> Any:
    """The table of recordings in `file`, packed with gzip or not. Raises OptionsError."""
    import pyarrow.json

    first = first_entry(file)
    kinds = {name: pa.int64() if type(first.get(name)) is int else pa.string() for name in TEXTS}
    schema = pa.schema([*kinds.items(), *((name, pa.float64()) for name in NUMBERS)])
    try:
        with pa.input_stream(str(file), compression="gzip" if file.suffix == ".gz" else None) as stream:
            given = pyarrow.json.read_json(
                stream,
                read_options=pyarrow.json.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
    except OSError as error:
        raise OptionsError(f"{file} cannot be read: {error.strerror or first_line(error)}") from error
    except pa.ArrowInvalid:  # ids of both kinds, a line that is no object: slower, and it says which
        schema = pa.schema([*((name, pa.string()) for name in TEXTS), *((name, pa.float64()) for name in NUMBERS)])
        given = pa.Table.from_pylist([_fields(file, number, line) for number, line in read_lines(file)], schema=schema)
    return recordings_of(given, file)


def _fields(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        given = {name: entry[name] for name in (*TEXTS, *NUMBERS) if not _is_missing(entry.get(name))}
        if any(isinstance(value, dict | list) for value in given.values()):
            raise TypeError
        return {name: float(value) if name in NUMBERS else _text(name, value) for name, value in given.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise OptionsError(
            f'Expected {{"audio": …}} on line {number} of {file}, got {cut(line, 200)!r}',
            hint="id, offset and duration (in seconds), channels and track may be there too",
        ) from None


def _is_missing(value: Any) -> bool:
    """Also of NaN, which is how Python's json writes a missing number of pandas'."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(name: str, value: Any) -> str:
    if name in ("channels", "track") and isinstance(value, float):
        value = int(value)  # programs that know no whole number beside a missing one write 1.0
    text = str(value)
    text.encode()  # raises for half of a pair of surrogates
    return text


def read_csv(file: Path) -> Any:
    """The table of recordings in `file`. Its first line names the columns. Raises OptionsError."""
    import pyarrow.csv

    try:
        given = pyarrow.csv.read_csv(
            file,
            parse_options=pyarrow.csv.ParseOptions(delimiter="\t" if file.suffix == ".tsv" else ","),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={**dict.fromkeys(TEXTS, pa.string()), **dict.fromkeys(NUMBERS, pa.float64())},
                strings_can_be_null=True,
                null_values=[""],
                quoted_strings_can_be_null=True,
            ),
        )
    except OSError as error:
        raise OptionsError(f"{file} cannot be read: {error.strerror or first_line(error)}") from error
    except pa.ArrowInvalid as error:
        raise OptionsError(
            f"{file} is no table: {first_line(error)}",
            hint="its first line names the columns, audio among them; offset and duration are seconds",
        ) from error
    return recordings_of(given, file)


def read_parquet(file: Path) -> Any:
    """The table of recordings in `file`. Raises OptionsError."""
    import pyarrow.parquet

    try:
        opened = pyarrow.parquet.ParquetFile(file)
        names = [name for name in (*TEXTS, *NUMBERS) if name in opened.schema_arrow.names]
        return recordings_of(opened.read(columns=names), file)
    except OSError as error:
        raise OptionsError(f"{file} cannot be read: {error.strerror or first_line(error)}") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise OptionsError(f"{file} is no manifest in parquet: {first_line(error)}") from error
