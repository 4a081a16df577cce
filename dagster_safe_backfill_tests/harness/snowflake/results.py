"""What a statement gives back, in the wire's form: the columns' types, and rows as Arrow as Snowflake sends them.

Snowflake sends a NUMBER as the smallest integer that holds the batch's values, with its scale beside it; so the
connector's `fetch_arrow_table` makes floats of NUMBER(10,2), unless it is told `arrow_number_to_decimal=True`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_TYPES = {
    '"NULL"': "text",
    "NULL": "text",
    "BLOB": "binary",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "DOUBLE": "real",
    "FLOAT": "real",
    "JSON": "variant",
    "TIME": "time",
    "TIME_NS": "time",
    "TIMESTAMP WITH TIME ZONE": "timestamp_ltz",
    "TIMESTAMP_NS": "timestamp_ntz",
    "TIMESTAMP": "timestamp_ntz",
    "TIMESTAMP_S": "timestamp_ntz",
    "TIMESTAMP_MS": "timestamp_ntz",
    "VARCHAR": "text",
    "UUID": "text",
}
_INTEGERS = re.compile(r"^U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?$")
_LONGEST = 16777216


@dataclass
class Result:
    """The outcome of one statement."""

    type_id: int
    rowtype: list[dict[str, Any]] = field(default_factory=list)
    table: pa.Table | None = None
    """A query's rows; None for all else."""
    rows: list[list[str | None]] = field(default_factory=list)
    """What statements that are no queries say, as text."""
    upload: dict[str, Any] | None = None


def column(name: str, duck_type: str, known: str | None = None) -> dict[str, Any]:
    """Describe a column as the server does; `known` is a Snowflake type that DuckDB can't tell."""
    scale = precision = length = None
    if duck_type.startswith("DECIMAL"):
        precision, scale = (int(digits) for digits in re.findall(r"\d+", duck_type))
        kind = "fixed"
    elif _INTEGERS.match(duck_type):
        kind, precision, scale = "fixed", 38, 0
    else:
        kind = _TYPES.get(duck_type, "variant")
    if kind == "text":
        size = re.search(r"\d+", known or "")
        length = int(size[0]) if size else _LONGEST
    elif kind == "binary":
        length = 8388608
    elif kind.startswith("time"):
        size = re.search(r"\d+", known or "")
        precision, scale = 0, int(size[0]) if size else 9
        kind = "timestamp_tz" if (known or "").startswith("TIMESTAMP_TZ") else kind
    elif kind == "variant" and known in {"ARRAY", "OBJECT"}:
        kind = known.lower()
    return {
        "name": name,
        "database": "",
        "schema": "",
        "table": "",
        "nullable": True,
        "type": kind,
        "byteLength": length,
        "length": length,
        "scale": scale,
        "precision": precision,
        "collation": None,
    }


def text(type_id: int, **said: str | int) -> Result:
    """Return the result of a statement that says something about itself, a column for each word."""
    rowtype = [column(name, "VARCHAR" if isinstance(value, str) else "BIGINT") for name, value in said.items()]
    return Result(type_id, rowtype, rows=[[str(value) for value in said.values()]])


def encoded(result: Result, *, arrow: bool = True) -> dict[str, Any]:
    """Return the part of the reply that holds the rows."""
    if result.table is None:
        return {"queryResultFormat": "json", "rowset": result.rows, "total": len(result.rows)}
    if not arrow:
        rows = [[None if value is None else str(value) for value in row.values()] for row in result.table.to_pylist()]
        return {"queryResultFormat": "json", "rowset": rows, "total": len(rows)}
    table, total = result.table, result.table.num_rows
    if not total:
        return {"queryResultFormat": "arrow", "rowsetBase64": "", "total": 0, "returned": 0}
    arrays = [_array(table.column(place), info) for place, info in enumerate(result.rowtype)]
    fields = [_field(info, array) for info, array in zip(result.rowtype, arrays, strict=True)]
    batch = pa.record_batch(arrays, schema=pa.schema(fields))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    rows = b64encode(sink.getvalue()).decode()
    return {"queryResultFormat": "arrow", "rowsetBase64": rows, "total": total, "returned": total}


def _field(info: dict[str, Any], array: pa.Array) -> pa.Field:
    metadata = {
        "logicalType": info["type"].upper(),
        "precision": str(info["precision"] or 38),
        "scale": str(info["scale"] or 0),
        "charLength": str(info["length"] or 0),
    }
    return pa.field(info["name"], array.type, metadata=metadata)


def _array(chunks: pa.ChunkedArray, info: dict[str, Any]) -> pa.Array:
    whole = chunks.combine_chunks()
    array: pa.Array = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    kind = info["type"]
    scale = info["scale"]
    if kind == "fixed":
        return _smallest(array, scale)
    if kind.startswith("timestamp"):
        return _timestamps(array, zoned=kind == "timestamp_tz", scale=scale)
    if kind == "time":
        # DuckDB's TIME_NS is that of a column whose nanoseconds count.
        return pc.divide(array.cast(pa.time64("ns")).cast(pa.int64()), 10 ** (9 - scale))
    if kind in {"text", "variant", "array", "object"}:
        return array.cast(pa.string())
    return array.cast(pa.float64()) if kind == "real" else array


def _smallest(array: pa.Array, scale: int) -> pa.Array:
    """Return a NUMBER's digits as the smallest integers that hold them all, or as decimals if none does."""
    if pa.types.is_decimal(array.type):
        # The same digits without the point.
        buffers = array.buffers()
        array = pa.Array.from_buffers(pa.decimal128(38, 0), len(array), buffers, array.null_count, array.offset)
    for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64()):
        try:
            return array.cast(kind)
        except pa.ArrowInvalid:
            continue
    wide = array.cast(pa.decimal128(38, 0))
    return pa.Array.from_buffers(pa.decimal128(38, scale), len(wide), wide.buffers(), wide.null_count, wide.offset)


def _timestamps(array: pa.Array, *, zoned: bool, scale: int) -> pa.Array:
    """Return seconds and nanoseconds apart, and for TIMESTAMP_TZ the offset, always UTC's here.

    Up to microseconds, it is one number.
    """
    unit = 1_000_000
    valid = array.is_valid()
    micros = pc.fill_null(array.cast(pa.timestamp("us", array.type.tz)).cast(pa.int64()), 0).to_numpy()
    if scale <= 6 and not zoned:
        return pa.array(micros // 10 ** (6 - scale), pa.int64(), mask=pc.invert(valid).to_numpy(zero_copy_only=False))
    seconds, rest = np.divmod(micros, unit)
    parts: list[tuple[str, pa.Array]] = [
        ("epoch", pa.array(seconds, pa.int64())),
        ("fraction", pa.array(rest * 1000, pa.int32())),
    ]
    if zoned:
        parts.append(("timezone", pa.array(np.full(len(array), 1440), pa.int32())))
    fields = [pa.field(name, part.type, nullable=False) for name, part in parts]
    return pa.StructArray.from_arrays([part for _, part in parts], fields=fields, mask=pc.invert(valid))
