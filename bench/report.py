"""Tables of what was measured, and the aims with their bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.contenders import BARE, BUILT_IN, FORMS, NO_OP, SAFE
from bench.data import MEMORY_LIMIT_MB
from bench.measure import Measured

MAX_OVER_BARE = 1.25
MAX_OVER_LIMIT = 1.1
MAX_IMPORT = 1.1
MAX_SCANS = 3
FORBIDDEN_IMPORTS = ("pandas", "snowflake")

Results = Mapping[tuple[str, int, int], Measured]
"""Medians by contender, days and number of audits."""


@dataclass(frozen=True, kw_only=True)
class Imports:
    """Seconds of `import dagster` and of the library's import, and what else the latter loads."""

    dagster: float
    library: float
    loaded: Sequence[str]

    @property
    def ratio(self) -> float:
        """How much the library's import takes, if dagster's is 1."""
        return self.library / self.dagster


@dataclass(frozen=True, kw_only=True)
class Aim:
    """Something the benchmark must show, what it showed, and whether that is enough."""

    text: str
    found: str
    met: bool

    def __str__(self) -> str:
        return f"- {'PASS' if self.met else 'FAIL'} {self.text}: {self.found}"


class Report:
    """The results, as Markdown."""

    def __init__(self, results: Results, imports: Imports, *, audits: int) -> None:
        self._results = results
        self._imports = imports
        self._audits = audits
        self._days = sorted({days for _, days, _ in results})

    def text(self) -> str:
        """Return all tables and aims."""
        return "\n".join([*self._tables(), "", "### Aims", "", *map(str, self.aims())])

    def aims(self) -> list[Aim]:
        """Return every aim that was measured."""
        return [
            *self._wall_aims(),
            *self._memory_aims(),
            *self._statement_aims(),
            *self._event_aims(),
            Aim(
                text=f"import at most {MAX_IMPORT} x dagster's",
                found=f"{self._imports.ratio:.2f}",
                met=self._imports.ratio <= MAX_IMPORT,
            ),
            Aim(
                text=f"import loads none of {', '.join(FORBIDDEN_IMPORTS)}",
                found=f"of those asked for it loads {', '.join(self._imports.loaded) or 'none'}",
                met=not set(FORBIDDEN_IMPORTS) & set(self._imports.loaded),
            ),
        ]

    # --- tables

    def _tables(self) -> Iterable[str]:
        names = list(dict.fromkeys(name for name, _, audits in self._results if audits == self._audits))
        yield from ("### Wall seconds of the whole process (of the run within it), medians", "")
        yield from self._table(
            {name: self._row(name, lambda one: f"{one.wall:.2f} ({one.seconds:.2f})") for name in names}
        )
        yield from ("", "### Ratios of wall", "")
        yield from self._table(dict(self._ratios()))
        yield from ("", f"### Peak memory in MB; DuckDB's limit is {MEMORY_LIMIT_MB} MB", "")
        yield from self._table({name: self._row(name, lambda one: f"{one.peak_mb:.0f}") for name in names})
        yield from ("", "### SQL statements and Dagster events of a run", "")
        yield from self._table(dict(self._counts()))
        imports = self._imports
        yield from ("", "### Import", "")
        yield f"dagster {imports.dagster:.2f} s, dagster_safe_backfill {imports.library:.2f} s, ratio {imports.ratio:.2f}"

    def _table(self, rows: Mapping[str, Sequence[str]]) -> Iterable[str]:
        yield "| days | " + " | ".join(f"{days:,}" for days in self._days) + " |"
        yield "|---|" + "---:|" * len(self._days)
        for name, cells in rows.items():
            yield f"| {name} | " + " | ".join(cells) + " |"

    def _row(self, name: str, cell: Callable[[Measured], str], *, audits: int | None = None) -> list[str]:
        found = [self._of(name, days, audits) for days in self._days]
        return ["" if one is None else cell(one) for one in found]

    def _of(self, name: str, days: int, audits: int | None = None) -> Measured | None:
        return self._results.get((name, days, self._audits if audits is None else audits))

    def _ratios(self) -> Iterable[tuple[str, list[str]]]:
        for form in FORMS:
            yield f"{form} / (a)", [self._shown(self._over_built_in(form, days)) for days in self._days]
            over_bare = [self._shown(self._over_bare(form, form, days)) for days in self._days]
            yield f"{form} / ((b) from {form} + (c))", over_bare
            if form != "query":
                strict = [self._shown(self._over_bare(form, "query", days)) for days in self._days]
                yield f"{form} / ((b) from query + (c))", strict

    def _shown(self, ratio: float | None) -> str:
        return "" if ratio is None else f"{ratio:.2f}"

    def _over_built_in(self, form: str, days: int) -> float | None:
        ours, theirs = self._of(SAFE[form], days), self._of(BUILT_IN, days)
        return ours.wall / theirs.wall if ours and theirs else None

    def _over_bare(self, form: str, bare_form: str, days: int) -> float | None:
        ours, bare = self._of(SAFE[form], days), self._of(BARE[bare_form], days)
        nothing = self._of(NO_OP, days)
        return ours.wall / (bare.wall + nothing.wall) if ours and bare and nothing else None

    def _counts(self) -> Iterable[tuple[str, list[str]]]:
        for audits in sorted({audits for name, _, audits in self._results if name == SAFE["query"]}):
            what = f"{audits} audit{'s' if audits > 1 else ''}"
            yield (
                f"statements, {what}",
                self._row(SAFE["query"], lambda one: str(one.statements), audits=audits),
            )
            yield (
                f"events, {what}",
                self._row(SAFE["query"], lambda one: str(one.events.total()), audits=audits),
            )
        yield f"events, no-op run, {self._audits} checks", self._row(NO_OP, lambda one: str(one.events.total()))

    # --- aims

    def _wall_aims(self) -> Iterable[Aim]:
        for form in FORMS:
            for days in self._days:
                ratio = self._over_built_in(form, days)
                if ratio is not None:
                    yield Aim(
                        text=f"{days:,} days as {form}: less wall than (a)", found=f"{ratio:.2f}", met=ratio < 1
                    )
                ratio = self._over_bare(form, form, days)
                if ratio is not None:
                    yield Aim(
                        text=f"{days:,} days as {form}: at most {MAX_OVER_BARE} x ((b) + (c))",
                        found=f"{ratio:.2f}",
                        met=ratio <= MAX_OVER_BARE,
                    )

    def _memory_aims(self) -> Iterable[Aim]:
        """More partitions are more events, which Dagster holds too; what is above that must not grow with rows."""
        for days in self._days:
            ours, nothing = self._of(SAFE["query"], days), self._of(NO_OP, days)
            if ours and nothing:
                above = ours.peak_mb - nothing.peak_mb
                yield Aim(
                    text=f"{days:,} days as query: memory above (c) at most {MAX_OVER_LIMIT} x DuckDB's limit",
                    found=f"{above:.0f} MB",
                    met=above <= MAX_OVER_LIMIT * MEMORY_LIMIT_MB,
                )

    def _statement_aims(self) -> Iterable[Aim]:
        by_audits: dict[int, set[int]] = {}
        for (name, _, audits), one in self._results.items():
            if name == SAFE["query"]:
                by_audits.setdefault(audits, set()).add(one.statements)
        if not by_audits:
            return
        yield Aim(
            text="as many statements for any number of partitions",
            found=", ".join(f"{sorted(counts)} with {audits}" for audits, counts in sorted(by_audits.items())),
            met=all(len(counts) == 1 and 0 not in counts for counts in by_audits.values()),
        )
        few, usual, many = (min(by_audits[audits]) for audits in sorted(by_audits))
        yield Aim(
            text="as many statements for any number of audits of the same kinds",
            found=f"{usual} with {self._audits}, {many} with {max(by_audits)}",
            met=usual == many,
        )
        yield Aim(
            text=f"the kinds add at most {MAX_SCANS} statements: rows, the reference, the drift",
            found=f"{usual - few}",
            met=usual - few <= MAX_SCANS,
        )

    def _event_aims(self) -> Iterable[Aim]:
        per_partition = {
            f"{name}, {audits}": self._events_per_partition(name, audits)
            for name, _, audits in self._results
            if name in (SAFE["query"], NO_OP)
        }
        found = {what: rate for what, rate in per_partition.items() if rate is not None}
        if found:
            yield Aim(
                text="as many events per partition for any number of audits as of the no-op run",
                found=", ".join(f"{rate:g} ({what})" for what, rate in found.items()),
                met=len(set(found.values())) == 1,
            )

    def _events_per_partition(self, name: str, audits: int) -> float | None:
        first, last = self._days[0], self._days[-1]
        few, many = self._of(name, first, audits), self._of(name, last, audits)
        if first == last or few is None or many is None:
            return None
        return (many.events.total() - few.events.total()) / (last - first)
