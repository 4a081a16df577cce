"""Tables of what was measured, and the aims with their bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.batches import DAYS as BATCHED_DAYS
from bench.command import BY_CODE, BY_URL, HELP, IMPORT, LIST, LONG, VALIDATE, YEAR, Command
from bench.contenders import BARE, BUILT_IN, CHECKS, FORMS, NO_OP, SAFE, TIGHT, TIGHT_MB
from bench.data import MEMORY_LIMIT_MB
from bench.measure import Batches, Measured, Publications
from bench.publications import DAYS, LIBRARY, RIVALS
from bench.retention import GONE, STANDING
from bench.sameness import EXACT, PLAIN

USUAL, MANY_AUDITS = len(CHECKS), 20
MAX_OVER_BARE, MAX_OVER_LIMIT_MB, MAX_IMPORT = 1.25, 100, 1.1
MAX_MORE_SCANS = 3
MAX_IDLE_STATEMENTS, MAX_WAIT = 20, 1.0
MAX_FOR_EXACT = 0.05
MAX_OVER_GROUP_BY, MIN_UNDER_CHECKS = 3, 3
MAX_OVER_BARE_PUBLICATION = 1.3
_PUBLICATION = ("write", "publish")
UNWANTED = ("pandas", "snowflake")
COMMANDS: Sequence[tuple[str, str, float]] = (
    (HELP, IMPORT, 0.25),
    (f"list, {BY_URL}", IMPORT, 0.5),
    (f"status of {YEAR:,}, {BY_URL}", IMPORT, 0.5),
    (f"status of {LONG:,}, {BY_URL}", IMPORT, 1),
    (f"plan of {YEAR:,}, {BY_URL}", IMPORT, 0.5),
    (f"plan of {YEAR:,}, {BY_CODE}", LIST, 2),
    (f"plan of {YEAR:,}, {BY_CODE}", VALIDATE, 1),
    (f"plan of {LONG:,}, {BY_CODE}", VALIDATE, 2),
)
"""A call of the command, one that does less, and how many times as long as that it may take, beside the webserver's
own time."""

Aim = tuple[str, str, bool]
"""What must be shown, what was found, and whether that is enough."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All results.

    Attributes:
        results: Medians, by contender, days and number of audits.
        imports: Seconds of an import, by module.
        loaded: Other libraries that importing this one loads.
        audits: Seconds of eight audits, and of what they are compared with; see `bench.audits`.
        publications: What publications and rollbacks took, by case, contender, step and quantity.
        batches: What the ways to cut a backfill took, by way and quantity.
        sameness: CPU seconds of a write and a merge, exact and plain, by type; see `bench.sameness`.
        retention: What retention took, by case and quantity; see `bench.retention`.
        command: Seconds of calls of the command, and of what they are compared with; see `bench.command`.
    """

    results: Mapping[tuple[str, int, int], Measured]
    imports: Mapping[str, float]
    loaded: Sequence[str]
    audits: Mapping[str, float]
    publications: Publications
    batches: Batches
    sameness: Mapping[str, Mapping[str, float]]
    retention: Mapping[str, Mapping[str, float]]
    command: Command

    @property
    def days(self) -> list[int]:
        """How many days were recomputed, ascending."""
        return sorted({days for _, days, _ in self.results})

    def tables(self) -> Iterator[str]:
        """Return the lines of all tables, in Markdown."""
        names = list(dict.fromkeys(name for name, _, _ in self.results))
        yield "\n### Wall seconds of the whole process (of the run in it; CPU), medians\n"
        yield "`Merge(archive_days=0)`, as (a) and (b) keep no archive either; publications with one are below.\n"
        yield from self._table({name: self._row(name, _times) for name in names})
        yield "\n### Ratios of wall (of CPU)\n"
        yield from self._table(
            {name: [self._both(*pair, days) for days in self.days] for name, pair in _RATIOS.items()}
        )
        yield f"\n### Peak memory in MB, where DuckDB's limit is {MEMORY_LIMIT_MB}\n"
        yield from self._table({name: self._row(name, lambda one: f"{one.peak_mb:.0f}") for name in names})
        yield "\n### SQL statements / Dagster events of a run\n"
        counted = [(name, audits) for name in (SAFE["query"], NO_OP) for audits in (1, USUAL, MANY_AUDITS)]
        yield from self._table(
            {
                f"{name}, {audits} audit{'s' * (audits > 1)}": self._row(
                    name, lambda one: f"{one.statements} / {one.events}", audits
                )
                for name, audits in counted
            }
        )
        yield "\n### Eight audits of 365 days, in seconds (statements in number)\n"
        yield ", ".join(f"{name} {value:.3g}" for name, value in self.audits.items())
        yield from _Undoable(measured=self.publications).tables()
        yield from _cut(self.batches)
        yield "\n### CPU seconds of a write and merge of a million rows, compared exactly and as the database does\n"
        for kind, one in self.sameness.items():
            yield f"- {kind}: " + ", ".join(f"{name} {seconds:.3f}" for name, seconds in one.items())
        yield f"\n### Retention of a table with {STANDING:,} archives, {GONE:,} more of which are gone\n"
        for case, one in self.retention.items():
            yield (
                f"- {case}: {one['seconds']:.2f} s, {one['statements']} statements,"
                f" the longest session that writes {one['longest']:.2f} s"
            )
        yield from _called(self.command)
        yield "\n### Import\n"
        yield ", ".join(f"{module} {seconds:.2f} s" for module, seconds in self.imports.items())

    def aims(self) -> Iterator[Aim]:
        """Return every aim."""
        for days in self.days:
            for form in FORMS:
                what = f"{days:,} days, {form}"
                ratio = self._ratio(SAFE[form], [BUILT_IN], days)
                yield f"{what}: less wall than (a)", f"{ratio:.2f}", ratio < 1
                ratio = self._ratio(SAFE[form], [BARE[form], NO_OP], days)
                yield f"{what}: at most {MAX_OVER_BARE} x ((b) + (c))", f"{ratio:.2f}", ratio <= MAX_OVER_BARE
            # Dagster holds its own events, which are more for more partitions; rows must not add to that. What DuckDB
            # may use it does use, so rows show as growth only up to its limit, which is tight here.
            above = self.results[TIGHT, days, USUAL].peak_mb - self.results[NO_OP, days, USUAL].peak_mb
            bound = TIGHT_MB + MAX_OVER_LIMIT_MB
            yield f"{days:,} days, query, {TIGHT_MB} MB: at most {bound} above (c)", f"{above:.0f}", above <= bound
        yield from self._flatness()
        for kind, one in self.sameness.items():
            more = one[EXACT] / one[PLAIN] - 1
            what = f"exact comparison of {kind} columns: at most {MAX_FOR_EXACT:.0%} of a write and merge"
            yield what, f"{more:.1%}", more <= MAX_FOR_EXACT
        yield from self._retention()
        ours = self.audits["audits"]
        ratio = ours / self.audits["bare"]
        yield (
            f"eight audits: at most {MAX_OVER_GROUP_BY} x one bare GROUP BY",
            f"{ratio:.2f}",
            ratio <= MAX_OVER_GROUP_BY,
        )
        ratio = self.audits["eight_checks"] / ours
        yield f"at least {MIN_UNDER_CHECKS} x faster than eight checks", f"{ratio:.2f}", ratio >= MIN_UNDER_CHECKS
        yield from _Undoable(measured=self.publications).aims()
        yield from _quick_calls(self.command)
        library, dagster = (self.imports[module] for module in ("dagster_safe_backfill", "dagster"))
        ratio = library / dagster
        yield f"import at most {MAX_IMPORT} x dagster's", f"{ratio:.2f}", ratio <= MAX_IMPORT
        yield (
            f"import without {' and '.join(UNWANTED)}",
            f"loads {', '.join(self.loaded) or 'neither'}",
            not set(UNWANTED) & set(self.loaded),
        )

    def _retention(self) -> Iterator[Aim]:
        idle, *_, busiest = self.retention.values()
        found = f"{idle['statements']} statements, {idle['seconds']:.2f} s"
        is_met = idle["statements"] <= MAX_IDLE_STATEMENTS and idle["longest"] == 0
        what = f"retention with nothing to drop: at most {MAX_IDLE_STATEMENTS} statements, no session that writes"
        yield what, found, is_met
        longest = busiest["longest"]
        yield f"retention: nobody waits longer than {MAX_WAIT} s for it", f"{longest:.2f}", longest <= MAX_WAIT

    def _flatness(self) -> Iterator[Aim]:
        ours = {key[1:]: one for key, one in self.results.items() if key[0] == SAFE["query"]}
        by_audits = {audits: {one.statements for key, one in ours.items() if key[1] == audits} for _, audits in ours}
        flat = all(len(counts) == 1 for counts in by_audits.values())
        yield "as many statements for any number of partitions", f"by audits: {by_audits}", flat
        one, usual, many = (max(by_audits[audits]) for audits in (1, USUAL, MANY_AUDITS))
        yield "as many statements for more audits of the same kinds", f"{usual}, {many}", usual == many
        yield f"other kinds of audits add at most {MAX_MORE_SCANS}", f"{usual - one}", usual - one <= MAX_MORE_SCANS
        first, last = self.days[0], self.days[-1]
        rates = {
            (name, audits): (self.results[name, last, audits].events - self.results[name, first, audits].events)
            / (last - first)
            for name, audits in ((NO_OP, USUAL), (SAFE["query"], USUAL), (SAFE["query"], 1))
        }
        yield (
            "events per partition as in the no-op run, for any number of audits",
            f"{rates}",
            len(set(rates.values())) == 1,
        )

    def _ratio(self, ours: str, theirs: Sequence[str], days: int, of: str = "wall") -> float:
        bound = sum(getattr(self.results[name, days, USUAL], of) for name in theirs)
        return getattr(self.results[ours, days, USUAL], of) / bound

    def _both(self, ours: str, theirs: Sequence[str], days: int) -> str:
        return f"{self._ratio(ours, theirs, days):.2f} ({self._ratio(ours, theirs, days, 'cpu'):.2f})"

    def _row(self, name: str, cell: Callable[[Measured], str], audits: int = USUAL) -> list[str]:
        found = [self.results.get((name, days, audits)) for days in self.days]
        return ["" if one is None else cell(one) for one in found]

    def _table(self, rows: Mapping[str, Sequence[str]]) -> Iterator[str]:
        yield "| days | " + " | ".join(f"{days:,}" for days in self.days) + " |"
        yield "|---" * (len(self.days) + 1) + "|"
        for name, cells in rows.items():
            if any(cells):
                yield f"| {name} | " + " | ".join(cells) + " |"


@dataclass(frozen=True, kw_only=True)
class _Undoable:
    """The tables and aims of publications that can be undone."""

    measured: Publications

    def tables(self) -> Iterator[str]:
        yield f"\n### Publications of {DAYS} days, with archives: wall seconds (CPU), medians\n"
        yield "| | write | publish | rollback | statements | of them fingerprints |"
        yield "|---" * 6 + "|"
        for case, contenders in self.measured.items():
            for name, steps in contenders.items():
                times = [self._times(steps.get(step)) for step in ("write", "publish", "rollback")]
                more = ["", ""]
                if name in LIBRARY:
                    more = [
                        " + ".join(f"{step['statements']:.0f}" for step in steps.values()),
                        " + ".join(f"{step['fingerprints']:.3f} s" for step in steps.values()),
                    ]
                yield f"| {case}: {name} | {' | '.join([*times, *more])} |"
        yield "\n### Ratios of publications to bare DuckDB, the quickest and each, and of rollbacks: wall (CPU)\n"
        yield "| | publish | write and publish | against each | rollback / write and publish |"
        yield "|---" * 5 + "|"
        for case, contenders in self.measured.items():
            for name in (name for name in LIBRARY if name in contenders):
                rivals = RIVALS[name]
                each = ", ".join(f"{rival} {self._both(case, name, [rival])}" for rival in rivals)
                quickest = [self._both(case, name, rivals, ["publish"]), self._both(case, name, rivals)]
                back = f"{self.back(case, name):.2f} ({self.back(case, name, 'cpu'):.2f})"
                yield f"| {case}: {name} | {' | '.join([*quickest, each, back])} |"

    def aims(self) -> Iterator[Aim]:
        name = "library, merge"
        for case in self.measured:
            ratio = self.ratio(case, name, RIVALS[name])
            what = f"{case} of {DAYS} days: write, archive and merge at most {MAX_OVER_BARE_PUBLICATION} x bare DuckDB"
            yield what, f"{ratio:.2f}", ratio <= MAX_OVER_BARE_PUBLICATION
            ratio = self.back(case, name)
            yield f"{case} of {DAYS} days: rollback at most as long as that", f"{ratio:.2f}", ratio <= 1

    def ratio(
        self, case: str, name: str, rivals: Sequence[str], steps: Sequence[str] = _PUBLICATION, of: str = "wall"
    ) -> float:
        return self._sum(case, name, steps, of) / min(self._sum(case, rival, steps, of) for rival in rivals)

    def back(self, case: str, name: str, of: str = "wall") -> float:
        return self._sum(case, name, ["rollback"], of) / self._sum(case, name, _PUBLICATION, of)

    def _both(self, case: str, name: str, rivals: Sequence[str], steps: Sequence[str] = _PUBLICATION) -> str:
        wall, cpu = (self.ratio(case, name, rivals, steps, of) for of in ("wall", "cpu"))
        return f"{wall:.2f} ({cpu:.2f})"

    def _sum(self, case: str, name: str, steps: Sequence[str], of: str) -> float:
        return sum(self.measured[case][name][step][of] for step in steps)

    def _times(self, step: Mapping[str, float] | None) -> str:
        return "" if step is None else f"{step['wall']:.2f} ({step['cpu']:.2f})"


def _cut(ways: Batches) -> Iterator[str]:
    """Return the table of a backfill of frames that is cut in several ways."""
    yield f"\n### {BATCHED_DAYS} days of frames: wall seconds (CPU), and peak memory in MB\n"
    yield "`*`: extrapolated from runs of the first partitions.\n"
    yield "| | seconds | peak memory |"
    yield "|---" * 3 + "|"
    for name, found in ways.items():
        times = BATCHED_DAYS / found["days"]
        mark = "" if times == 1 else f" * {found['days']:.0f} runs: {found['wall']:.1f} ({found['cpu']:.1f})"
        shown = f"{found['wall'] * times:.1f} ({found['cpu'] * times:.1f})"
        yield f"| {name} | {shown}{mark} | {found['peak_mb']:.0f} |"


def _called(calls: Command) -> Iterator[str]:
    """Return the table of the command's calls."""
    yield "\n### Calls of safe-backfill: wall seconds of the whole process, medians\n"
    yield "| | seconds | of them the webserver's | imported |"
    yield "|---" * 4 + "|"
    for name, one in calls.items():
        loaded = ", ".join(sorted({*one} - {"seconds", "waited"}))
        waited = f"{one['waited']:.2f}" if "waited" in one and BY_URL in name else ""
        yield f"| {name} | {one['seconds']:.2f} | {waited} | {loaded} |"


def _quick_calls(calls: Command) -> Iterator[Aim]:
    for name, other, bound in COMMANDS:
        own = calls[name]["seconds"] - calls[name]["waited"]
        ratio = own / calls[other]["seconds"]
        what = f"safe-backfill {name}: at most {bound} x {other}, beside the webserver's own time"
        yield what, f"{ratio:.2f}, {own:.2f} s", ratio <= bound
    loading = [name for name, one in calls.items() if BY_URL in name and "dagster" in one]
    yield "safe-backfill by url imports no dagster", f"{loading or 'none does'}", not loading


def _times(one: Measured) -> str:
    return f"{one.wall:.2f} ({one.seconds:.2f}; {one.cpu:.2f})"


_RATIOS: Mapping[str, tuple[str, Sequence[str]]] = {
    "query / (a)": (SAFE["query"], [BUILT_IN]),
    "frame / (a)": (SAFE["frame"], [BUILT_IN]),
    "query / ((b) query + (c))": (SAFE["query"], [BARE["query"], NO_OP]),
    "frame / ((b) frame + (c))": (SAFE["frame"], [BARE["frame"], NO_OP]),
    "frame / ((b) query + (c))": (SAFE["frame"], [BARE["query"], NO_OP]),
}
