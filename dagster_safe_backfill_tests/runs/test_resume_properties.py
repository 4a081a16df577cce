"""Reusing what earlier tries staged or published gives the rows that computing all of them again would give.

Histories are drawn: a definition, up to four tries that fail, are rejected or killed, and what changes between and
during them. The last try is of all partitions, and succeeds.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.model_events import KINDS, OF_KEYS, OF_TIME, Definition, built, keys_of
from dagster_safe_backfill_tests.harness.model_runs import Again, Ending, Try, launch, refusal
from dagster_safe_backfill_tests.harness.model_world import World

HISTORIES = int(os.environ.get("SAFE_BACKFILL_HISTORIES", "2200"))
"""How many are drawn; 20,000 take some minutes."""
CHUNKS = 8
CHANGES = ("upstream", "upstream", "source", "code", "config", "rules", "definition", "live", "good")


class History:
    """One drawn history."""

    def __init__(self, seed: int, *, is_resumed: bool = True) -> None:
        self.random = random.Random(seed)
        self.is_resumed = is_resumed
        self.world = self._world()
        # Few kinds of changes in each history: one that makes all rows outdated would hide what others do.
        self.theme = [what for what in CHANGES if self.random.random() < 0.3] or ["upstream"]
        self.endings: list[Ending] = []
        self.doors: list[str] = []
        self.told: list[object] = [self.world.of, self.world.batches]

    def _definition(self, kind: str | None = None) -> Definition:
        draw = self.random
        kind = kind or draw.choice(KINDS)
        is_of_time = kind in ("daily", "weekly", "hourly")
        mapped = OF_TIME if is_of_time else OF_KEYS
        upstream = tuple((draw.choice(mapped), draw.random() < 0.5) for _ in range(draw.choice([0, 1, 1, 2])))
        return Definition(kind, upstream, is_of_time and draw.random() < 0.3)  # type: ignore[arg-type]

    def _world(self) -> World:
        draw = self.random
        of = self._definition()
        size = draw.choice([None, 1, 1, 2, 3])
        is_each = draw.random() < 0.5
        is_staged = not is_each and not of.is_self_dependent and draw.random() < 0.3
        if of.is_self_dependent and not is_each:
            size = None
        batches = sb.Batches(size=size, publish_each=is_each, canary=draw.random() < 0.3, resume=self.is_resumed)
        bad = {draw.choice(keys_of(of))} if draw.random() < 0.4 else set[str]()
        return World(of, batches, is_staged_shape=is_staged, bad=bad)

    def run(self) -> World:
        for _ in range(self.random.randint(1, 4)):
            self._try(is_last=False)
        self._try(is_last=True)
        if self.world.is_staged_shape:
            self._is_audited()
        return self.world

    def _is_audited(self) -> None:
        """See that what changes after all is staged is refused, or is no change of what is staged."""
        world, keys = self.world, keys_of(self.world.of)
        kinds = [kind for kind, _ in world.of.upstream]
        source, config, partitions_def = world.source, world.config, world.of.partitions_def
        # What was staged in the same group by another definition is refused by name.
        assert refusal(world) is None or "definition" in self.theme, self.told
        self.theme = [what for what in self.theme if what not in ("source", "good", "live")] or ["upstream"]
        self._changes("launch")
        if kinds != [kind for kind, _ in world.of.upstream]:
            # A run of `x__audit` doesn't know the partitions of what is upstream of `x__shadow`.
            return
        if world.of.partitions_def != partitions_def:
            assert refusal(world) is not None, self.told
            return
        # A run that audits doesn't know the source or the config.
        world.source, world.config = source, config
        refused = refusal(world)
        is_same = all(self._staged(key) == world.value(key, None) for key in keys)
        self.doors.append("passed" if refused is None else "refused")
        assert is_same or refused is not None, self.told

    def _try(self, *, is_last: bool) -> None:
        world, draw = self.world, self.random
        again: list[Again] = ["launch", "all", "from_failure"] if self.endings else ["launch"]
        if self.endings and self.endings[-1] == "failed":
            again.append("retry")
        kind = draw.choice(again)
        if self.endings:
            kind = self._changes(kind)
        if is_last:
            if world.bad:
                world.bad = set()
                kind = self._source_changes(kind)
            # A step is retried for the partitions of its run, and these may be some of all.
            plan = Try("launch" if kind == "retry" else kind, keys_of(world.of))
        else:
            plan = self._plan(kind)
        self.told.append(plan)
        self.keys = plan.keys
        ending = launch(world, plan)
        self.told.append(ending)
        self.endings.append(ending)
        self._check(plan, ending)
        if is_last:
            assert ending == "succeeded", self.told

    def _changes(self, kind: Again) -> Again:
        """Change something between two tries; return how the next one may be started then."""
        world, draw = self.world, self.random
        for _ in range(draw.choice([0, 1, 1, 2])):
            what = draw.choice(self.theme)
            self.told.append(what)
            if what == "upstream" and world.of.upstream:
                self.refresh(*self._input())
            elif what == "source":
                kind = self._source_changes(kind)
            elif what == "live" and world.live:
                key = draw.choice(sorted(world.live))
                if draw.random() < 0.3:
                    del world.live[key]
                else:
                    world.live[key] = ("by hand", draw.random())
            elif what == "good":
                if world.bad:
                    world.bad = set()
                    kind = self._source_changes(kind)
            elif kind != "retry":
                self._redefined(what)
        return kind

    def _redefined(self, what: str) -> None:
        world = self.world
        if what == "code":
            world.code += 1
        elif what == "config":
            world.config += 1
        elif what == "rules":
            world.rules += 1
        elif what == "definition":
            of = world.of
            other = self._definition({"daily": "weekly", "weekly": "daily"}.get(of.kind, of.kind))
            world.of = replace(other, is_self_dependent=of.is_self_dependent)
            self.told.append(world.of)

    def _source_changes(self, kind: Again) -> Again:
        """Let what Dagster doesn't know change: with the code, or after a rejection or failure, and then for all."""
        world = self.world
        world.source += 1
        is_mended = self.endings[-1] == "rejected" or not {"interrupted", "succeeded"} & {*self.endings} - {"rejected"}
        # A run that was killed after a rejection: whoever mends the source does so because of that.
        is_rejected = world.last is not None and world.last.run_id in world.rejections
        if (is_rejected or (is_mended and self.endings[-1] in ("rejected", "failed"))) and self.random.random() < 0.7:
            return "launch" if world.batches.publish_each or kind != "all" else "all"
        world.code += 1
        return "launch" if kind == "retry" else kind

    def _input(self) -> tuple[str, str]:
        world, draw = self.world, self.random
        number = draw.randrange(len(world.of.upstream))
        parts = [part for (name, _), read in built(world.of)[2].items() if name == f"u{number}" for part in read]
        return f"u{number}", draw.choice(parts or [keys_of(world.of)[0]])

    def refresh(self, name: str, part: str) -> None:
        self.told.append((name, part))
        self.world.refresh(name, part)

    def _plan(self, kind: Again) -> Try:
        world, draw = self.world, self.random
        keys = keys_of(world.of)
        if kind == "retry":
            keys = self.keys
        elif draw.random() < 0.3:
            first = draw.randrange(len(keys))
            keys = keys[first : first + draw.randint(1, 4)]
        at: dict[str, tuple[str, ...]] = {}
        for _ in range(draw.choice([0, 1, 1, 1, 2])):
            what = draw.choice(["error", "error", "kill", "timeout", "refresh before", "refresh after"])
            if not what.startswith("refresh"):
                at[draw.choice(keys)] = (what,)
            elif world.of.upstream:
                at[draw.choice(keys)] = (what, *self._input())
        after = (0, "")
        if draw.random() < 0.3:
            after = draw.randrange(4), draw.choice(["written", "audited", "published", "collected"])
        late = self._input() if world.of.upstream and draw.random() < 0.2 else ()
        return Try(kind, keys, at, after, late, is_monitored=draw.random() < 0.7)

    def _check(self, plan: Try, ending: Ending) -> None:
        world = self.world
        live = world.live or {}
        if not world.is_staged_shape:
            green = {event.partition_key for event in world.log.events if event.asset.to_user_string() == "x"}
            assert green <= {*live, *self._deleted()}, self.told
        is_still = not plan.late and not any(what[0].startswith("refresh") for what in plan.at.values())
        # Whoever changes a partition by hand tells nobody, and what is done doesn't look at what is before it.
        is_unknown = world.of.is_self_dependent and "live" in self.theme and len(plan.keys) < len(keys_of(world.of))
        if ending != "succeeded" or not is_still or is_unknown:
            return
        for key in plan.keys:
            value = self._staged(key) if world.is_staged_shape else live[key]
            assert value == world.value(key, world.before(key, live)), (key, self.told)

    def _deleted(self) -> set[str]:
        """Return what somebody deleted by hand."""
        return {one.key for one in self.world.ledger if one.event == "published"} - {*(self.world.live or ())}

    def _staged(self, key: str) -> object:
        world = self.world
        one = [one for one in world.newest(keys=[key]) if one.event == "audited"][-1]
        assert one.shadow is not None
        return world.shadows[one.shadow][key]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_resumed_rows_are_those_that_computing_all_again_gives(chunk: int) -> None:
    counted: Counter[str] = Counter()
    for seed in range(chunk, HISTORIES, CHUNKS):
        history = History(seed)
        try:
            world = history.run()
        except AssertionError as error:
            raise AssertionError(f"history {seed}") from error
        counted["histories"] += 1
        counted["reused"] += world.reused
        counted["computed"] += world.calls
        counted.update([*history.endings, *history.doors])
    assert counted["histories"] == len(range(chunk, HISTORIES, CHUNKS))
    # A property that nothing is reused for would say little.
    assert counted["reused"] > counted["histories"] / 10, counted
    assert min(counted["passed"], counted["refused"]) > 0 or HISTORIES < 1000, counted
