"""Tables in memory as rows, and back: pandas, polars, arrow, a list of dicts. None of them is a dependency."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from overnight.errors import JobError
from overnight.jobs.row import Row
from overnight.jobs.values import row_of

WHERE = "the data:"


def frame_rows(data: Any, key: str) -> Iterator[Row]:
    """The rows of a pandas or polars frame, an arrow table or a sequence of dicts, in their order.

    JobError at once for anything else, and from the iterator for a row without a key.
    """
    return (row_of(columns, key, where=WHERE) for columns in _columns(data))


def frame_like(data: Any, records: list[dict[str, Any]]) -> Any:
    """`records` as a table of the kind that `data` is. Columns that a record does not have are missing values."""
    names = dict.fromkeys(name for record in records for name in record)
    match _kind(data):
        case "pandas":
            return type(data)(records, columns=list(names))
        case "polars":
            return type(data)(records, schema=list(names), infer_schema_length=None)
        case "pyarrow":
            return type(data).from_pylist([{name: record.get(name) for name in names} for record in records])
        case _:
            return records


def _kind(data: Any) -> str:
    kind = type(data)
    library = kind.__module__.partition(".")[0]
    if (library, kind.__name__) in (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table")):
        return library
    if isinstance(data, Sequence) and all(isinstance(record, Mapping) for record in data):
        return "records"
    raise JobError(
        f"{WHERE} {library}.{kind.__name__} is no pandas or polars DataFrame, arrow Table or list of dicts"
    )


def _columns(data: Any) -> Iterator[Mapping[str, Any]]:
    match _kind(data):
        case "pandas":
            return _of_pandas(data)
        case "polars":
            return iter(data.iter_rows(named=True))
        case "pyarrow":
            return (record for batch in data.to_batches() for record in batch.to_pylist())
        case _:
            return iter(data)


def _of_pandas(data: Any) -> Iterator[dict[str, Any]]:
    """Only pandas knows all its marks of a missing value: NaN, NaT, NA, None."""
    names = [str(name) for name in data.columns]
    present = data.notna()
    columns = (zip(data.iloc[:, at], present.iloc[:, at], strict=True) for at in range(len(names)))
    for cells in zip(*columns, strict=True):
        yield {name: value if is_there else None for name, (value, is_there) in zip(names, cells, strict=True)}
