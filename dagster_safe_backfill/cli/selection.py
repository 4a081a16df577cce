"""Which partitions a call names: `--from` and `--to`, keys, a file, dimensions, the last ones, or all."""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import click

from dagster_safe_backfill.cli.answers.answer import CommandError, usage_error
from dagster_safe_backfill.cli.api.completion import complete_key
from dagster_safe_backfill.cli.api.values import Asset

Filter = Literal["missing", "failed", "changed", "materialized"]

_RANGE = "..."
"""Between the first and the last key of a range, as in Dagster's UI."""

OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "-s",
        "--from",
        "--start-date",
        "first",
        metavar="KEY",
        shell_complete=complete_key,
        help="The first partition; it is included.",
    ),
    click.option(
        "-e",
        "--to",
        "--end-date",
        "last",
        metavar="KEY",
        shell_complete=complete_key,
        help="The last partition; it is included.",
    ),
    click.option(
        "--partitions",
        "names",
        multiple=True,
        metavar="KEYS",
        shell_complete=complete_key,
        help="Partition keys, with commas between.",
    ),
    click.option(
        "--partitions-file",
        "file",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="A file with one partition key a line, which may contain commas; - reads them from stdin.",
    ),
    click.option(
        "--dimension",
        "dimensions",
        multiple=True,
        metavar="NAME=KEYS",
        help="Of multi-partitions: the keys of one dimension, with commas between, or a range FIRST...LAST. Repeat it"
        " for other dimensions; one that isn't named is taken whole.",
    ),
    click.option("--last", "newest", type=click.IntRange(min=1), metavar="N", help="The last N partitions."),
    click.option("--all", "is_all", is_flag=True, help="All partitions. It is never assumed."),
    click.option("--missing", is_flag=True, help="Of these, only those that were never materialized and didn't fail."),
    click.option("--failed", is_flag=True, help="Of these, only those whose last run failed."),
    click.option(
        "--changed",
        is_flag=True,
        help="Of these, only those whose code or upstream assets changed since they were published, or whose rows were"
        " changed by hand.",
    ),
    click.option(
        "--reprocess",
        type=click.Choice(["none", "failed", "completed"]),
        help="As in Airflow: none takes missing partitions only, failed also those that failed, completed all.",
    ),
)

KEY_OPTIONS = OPTIONS[:7]
"""The options that name partitions, without those that choose among them by what Dagster knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The partitions that a call names.

    Attributes:
        first: The first key of a range.
        last: The last key of it, which is included.
        names: Texts with a key each, or several with commas between.
        keys: Keys one by one, which may contain commas.
        dimensions: A mapping from the name of a dimension to its keys.
        newest: How many of the last partitions.
        is_all: True for all partitions.
        only: Which of these are taken; empty for all of them.
    """

    first: str | None = None
    last: str | None = None
    names: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    dimensions: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    newest: int | None = None
    is_all: bool = False
    only: frozenset[Filter] = frozenset()

    @property
    def names_partitions(self) -> bool:
        """True if it names partitions, or which of all are taken."""
        return bool(self.bases or self.only)

    @property
    def bases(self) -> list[str]:
        """The options that name partitions."""
        given = {
            "--from/--to": self.first or self.last,
            "--partitions": self.names or self.keys,
            "--dimension": self.dimensions,
            "--last": self.newest,
            "--all": self.is_all,
        }
        return [name for name, value in given.items() if value]

    def of(self, asset: Asset) -> list[str]:
        """Return the keys of an asset that are named, in the asset's order, before `only` is looked at.

        Raises:
            CommandError: A name isn't a key of the asset, a range is reversed, or nothing is named.
        """
        if asset.kind is None:
            if self.names_partitions:
                raise usage_error("no_partitions", f"{asset.key} has no partitions, so none can be named")
            return []
        if not self.names_partitions:
            raise usage_error(
                "no_selection",
                f"nothing says which of the {len(asset.keys):,} partitions of {asset.key}",
                hint="give --from and --to, --partitions, --last, --missing, --failed, --changed or --all",
            )
        if not asset.keys:
            raise usage_error("no_partitions", f"{asset.key} has no partitions yet")
        if asset.kind == "multi" and (self.first or self.last or self.newest):
            raise self._no_order(asset)
        if self.first or self.last:
            return [*_range(asset.keys, self.first, self.last, of=asset.key)]
        if self.newest is not None:
            return [*asset.keys[-self.newest :]]
        if self.dimensions:
            return self._of_dimensions(asset)
        if self.names or self.keys:
            return _known(self.names, self.keys, asset)
        return [*asset.keys]

    def _no_order(self, asset: Asset) -> CommandError:
        """Return the error of a range of multi-partitions, which could mean cells in a row, or a rectangle."""
        parts = [(one or "").split("|") for one in (self.first, self.last)]
        ends = [one if len(one) == len(asset.dimensions) else ["FIRST", "LAST"] for one in parts]
        pairs = zip(asset.dimensions, *ends, strict=True) if self.first and self.last and ends == parts else ()
        shown = [f"--dimension {name}={first}{_RANGE}{last}" for name, first, last in pairs]
        return usage_error(
            "no_order",
            f"{asset.key} has the dimensions {' and '.join(asset.dimensions)}, so its partitions are in no one order",
            hint=f"name a range of each dimension: {' '.join(shown) or f'--dimension NAME=FIRST{_RANGE}LAST'}",
        )

    def _of_dimensions(self, asset: Asset) -> list[str]:
        if asset.kind != "multi":
            raise usage_error("no_dimensions", f"{asset.key} has no dimensions; name its partitions by --from and --to")
        parts = {key: dict(zip(asset.dimensions, key.split("|"), strict=False)) for key in asset.keys}
        wanted: dict[str, set[str]] = {}
        for name, keys in self.dimensions.items():
            if name not in asset.dimensions:
                raise usage_error(
                    "unknown_dimension", f"{asset.key} has no dimension {name}; it has {', '.join(asset.dimensions)}"
                )
            every = [*dict.fromkeys(part[name] for part in parts.values())]
            wanted[name] = _keys_and_ranges(keys, every, of=f"dimension {name} of {asset.key}")
        return [key for key, part in parts.items() if all(part[name] in keys for name, keys in wanted.items())]


def selection_of(
    *,
    first: str | None,
    last: str | None,
    names: Sequence[str],
    file: str | None,
    dimensions: Sequence[str],
    newest: int | None,
    is_all: bool,
    missing: bool,
    failed: bool,
    changed: bool,
    reprocess: str | None,
) -> Selection:
    """Return the selection that the options of a call give.

    Raises:
        CommandError: Options contradict each other, or a file can't be read.
    """
    only: set[Filter] = set()
    if missing or reprocess in {"none", "failed"}:
        only.add("missing")
    if failed or reprocess == "failed":
        only.add("failed")
    if changed:
        only.add("changed")
    if reprocess is not None and (missing or failed or changed):
        raise usage_error("contradiction", "--reprocess says already which partitions are taken; leave out the others")
    keys = () if file is None else _lines(file)
    found = Selection(
        first=first,
        last=last,
        names=tuple(names),
        keys=tuple(keys),
        dimensions=dict(map(_dimension, dimensions)),
        newest=newest,
        is_all=is_all or (reprocess == "completed" and not (first or last or names or keys or dimensions or newest)),
        only=frozenset(only),
    )
    if len(found.bases) > 1:
        raise usage_error("contradiction", f"{' and '.join(found.bases)} name partitions each; give one of them")
    return found


def nearest(key: str, every: Sequence[str]) -> list[str]:
    """Return the keys that are nearest to something that is none: before and after it in time, or spelled alike."""
    wanted = _numbers(key)
    if not wanted or not all(one[:1].isdigit() for one in every):
        return get_close_matches(key, every, 3, 0.5)
    ordered = sorted((_numbers(one), one) for one in every)
    position = bisect_left(ordered, (wanted, ""))
    is_meant = position < len(every) and ordered[position][0] == wanted
    return [one for _, one in ordered[position if is_meant else max(0, position - 1) : position + 1]]


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers in a date, by which dates are in order however they are written; the year comes first."""
    spaced = re.sub(r"^(\d{4})(\d{2})(\d{2})(?!\d)", r"\1 \2 \3 ", text)
    found = [int(one) for one in re.findall(r"\d+", spaced)]
    if len(found) >= 3 and found[0] < 1000 <= found[2]:
        found = [found[2], *found[:2], *found[3:]]
    return tuple(found)


def _range(every: Sequence[str], first: str | None, last: str | None, *, of: str) -> Sequence[str]:
    position = {key: number for number, key in enumerate(every)}
    for name, key in (("--from", first), ("--to", last)):
        if key is not None and key not in position:
            raise _no_key(key, every, of=of, option=name)
    start = 0 if first is None else position[first]
    end = len(every) - 1 if last is None else position[last]
    if end < start:
        raise usage_error(
            "inverted_range", f"--from {first} is after --to {last}", hint=f"swap them: --from {last} --to {first}"
        )
    return every[start : end + 1]


def _no_key(key: str, every: Sequence[str], *, of: str, option: str | None = None) -> CommandError:
    near = nearest(key, every)
    said = f"{option} {key} is" if option else f"{key} is"
    hint = f"the nearest are {' and '.join(near)}" if near else None
    if every:
        around = f"they run from {every[0]} to {every[-1]}"
        hint = f"{hint}; {around}" if hint else around
    return usage_error("unknown_partition", f"{said} not a partition of {of}", hint=hint, partitions=[key])


def _known(names: Sequence[str], keys: Sequence[str], asset: Asset) -> list[str]:
    """Return the keys that are named: by texts, each a key or several with commas between, and one by one."""
    position = {key: number for number, key in enumerate(asset.keys)}
    found: set[str] = set()
    for key in (*keys, *chain.from_iterable(_split(name, position, asset) for name in names)):
        known = key if key in position else key.strip()
        if known not in position:
            raise _no_key(known, asset.keys, of=asset.key)
        found.add(known)
    return sorted(found, key=position.__getitem__)


def _split(name: str, known: Container[str], asset: Asset) -> Sequence[str]:
    parts = name.split(",")
    if name not in known:
        return parts
    if len(parts) > 1 and all(part.strip() in known for part in parts):
        raise usage_error(
            "ambiguous_keys",
            f"{name} is a partition of {asset.key}, and so is each of {', '.join(map(str.strip, parts))}",
            hint="give them by --partitions-file, one key a line",
        )
    return [name]


def _keys_and_ranges(names: Sequence[str], every: Sequence[str], *, of: str) -> set[str]:
    found: set[str] = set()
    for name in names:
        first, is_range, last = name.partition(_RANGE)
        if is_range:
            found |= {*_range(every, first, last, of=of)}
        elif name not in every:
            raise _no_key(name, every, of=of)
        else:
            found.add(name)
    return found


def _dimension(text: str) -> tuple[str, Sequence[str]]:
    name, is_given, keys = text.partition("=")
    if not is_given or not keys:
        raise usage_error(
            "bad_dimension", f"--dimension {text} is not NAME=KEYS", hint="such as --dimension region=eu,us"
        )
    return name, [key.strip() for key in keys.split(",")]


def _lines(file: str) -> list[str]:
    """Return the keys of a file; the last line may have no end, and empty lines don't count."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise usage_error("unreadable_file", f"{file} can't be read: {error}") from error
    found = [line for line in text.splitlines() if line.strip()]
    if not found:
        raise usage_error("empty_file", f"{file} names no partitions")
    return found
