"""Following a backfill until it ends: `watch`, and what `launch`, `retry` and `approve` do with `--watch`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, Exit, Problem
from dagster_safe_backfill.cli.answers.data.progress import StatusData
from dagster_safe_backfill.cli.answers.output import Output, duration
from dagster_safe_backfill.cli.following.bar import View, view_of
from dagster_safe_backfill.cli.following.next_steps import commands_of, next_commands
from dagster_safe_backfill.cli.following.place import Place, command, find
from dagster_safe_backfill.cli.following.reading.reader import Reader
from dagster_safe_backfill.cli.following.screen import show, show_commands
from dagster_safe_backfill.cli.following.states import Progress
from dagster_safe_backfill.cli.following.status_data import problems, status_data

PATIENCE = 60.0
"""For how many seconds a Dagster that went away is asked again."""
_STILL = 4.0
"""After how many seconds without a change it is asked whether a daemon lives."""
_DAEMONS_EVERY = 10.0


def answer_of(progress: Progress, place: Place) -> Answer[StatusData]:
    """Return how far a backfill is; the exit code is 1 if partitions were rejected, failed or cancelled."""
    commands = next_commands(progress, place)
    return Answer(
        data=status_data(progress, commands),
        show=partial(show, progress=progress, commands=commands),
        brief=progress.status,
        exit_code=Exit.FAILED if progress.has_failed else Exit.DONE,
        warnings=progress.warnings,
        errors=problems(progress),
    )


def follow(
    place: Place,
    output: Output,
    wanted: str,
    *,
    timeout: float | None = None,
    interval: float = 2.0,
    patience: float = PATIENCE,
) -> Answer[StatusData | None]:
    """Follow a backfill or a run until it ends, and return how it ended. Progress goes to stderr.

    The answer's exit code is 0 if all partitions are live (or staged, where nothing is to be published), 1 if some were
    rejected, failed or cancelled, 6 if the time is up and it still runs, and 130 if Ctrl-C detached it.

    Args:
        place: The Dagster that runs it.
        output: How the call prints.
        wanted: The id of a backfill or a run, or its beginning.
        timeout: The seconds after which it is no longer followed; None to wait until it ends.
        interval: The seconds between two readings.
        patience: For how many seconds a Dagster that went away is asked again.

    Raises:
        CommandError: There is no such backfill; or Dagster doesn't answer.
    """
    following: _Following | None = None
    try:
        subject = find(place.dagster, wanted)
        reader = Reader(dagster=place.dagster, subject=subject)
        with view_of(output) as view:
            following = _Following(place=place, reader=reader, view=view, interval=interval, patience=patience)
            return following.to_the_end(timeout)
    except KeyboardInterrupt:
        progress = None if following is None else following.progress
        return _detached(place, wanted if progress is None else progress.id, progress)


@dataclass(kw_only=True)
class _Following:
    """The state of a watch.

    Attributes:
        progress: The last reading.
    """

    place: Place
    reader: Reader
    view: View
    interval: float
    patience: float
    progress: Progress | None = None
    _daemon: _DaemonWatch = field(init=False)

    def __post_init__(self) -> None:
        self._daemon = _DaemonWatch(self.place)

    def to_the_end(self, timeout: float | None) -> Answer[StatusData]:
        """Read until it ends, or until the time is up."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self.progress = progress = self._read()
            waits_for = self._daemon.why_it_waits(progress)
            self.view.show(progress, waits_for)
            if progress.is_over:
                return answer_of(progress, self.place)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return _time_is_up(progress, self.place, timeout or 0, waits_for)
            time.sleep(self.interval if left is None else min(self.interval, left))

    def _read(self) -> Progress:
        """Return a reading; a Dagster that went away is asked again for a while.

        Raises:
            CommandError: It stays away.
        """
        away_since: float | None = None
        while True:
            try:
                progress = self.reader.read()
            except CommandError as error:
                if error.exit_code != Exit.UNREACHABLE or error.problem.code == "unauthorized":
                    raise
                if away_since is None:
                    away_since = time.monotonic()
                    self.view.note(f"{error.problem.message}; asking again for {duration(self.patience)}")
                if time.monotonic() - away_since >= self.patience:
                    raise self._gave_up(error) from error
                time.sleep(min(self.interval, 2.0))
            else:
                if away_since is not None:
                    self.view.note(f"{self.place.dagster.place} answers again")
                return progress

    def _gave_up(self, error: CommandError) -> CommandError:
        again = command(self.place, "watch", self.reader.subject.id)
        return CommandError(
            error.problem.code,
            f"{error.problem.message}; given up after {duration(self.patience)}. The backfill goes on without this",
            exit_code=Exit.UNREACHABLE,
            hint=f"watch it again by: {again}",
        )


@dataclass
class _DaemonWatch:
    """Notices that nothing happens because no daemon lives."""

    place: Place
    _state: object = None
    _since: float = 0.0
    _asked_at: float = 0.0
    _reasons: Sequence[str] = ()

    def why_it_waits(self, progress: Progress) -> Sequence[str]:
        """Return why nothing happens; empty if something does, or if that isn't known."""
        now, state = time.monotonic(), (progress.counts, progress.status, len(progress.runs))
        if state != self._state:
            self._state, self._since, self._reasons = state, now, ()
        is_still = now - self._since >= _STILL and not progress.is_over and "running" not in progress.counts
        # `launch --in-process` does the daemon's work itself.
        if self.place.launches or not is_still:
            return ()
        if now - self._asked_at >= _DAEMONS_EVERY:
            self._asked_at = now
            self._reasons = self._absent(progress)
        return self._reasons

    def _absent(self, progress: Progress) -> Sequence[str]:
        name = "QUEUED_RUN_COORDINATOR" if any(run.is_open for run in progress.runs) else "BACKFILL"
        try:
            daemon = self.place.dagster.daemon(name)
        except CommandError:
            return ()
        if daemon is None or daemon.is_healthy or not daemon.is_required:
            return ()
        last = "it never ran here"
        if daemon.heartbeat_at is not None:
            last = f"its last heartbeat was {duration(time.time() - daemon.heartbeat_at)} ago"
        why = (
            f"it waits, because Dagster's {name} daemon isn't alive ({last}). Start `dagster-daemon run`, or"
            " `dagster dev`, on this instance, and it goes on by itself."
        )
        return [why]


def _time_is_up(progress: Progress, place: Place, timeout: float, waits_for: Sequence[str]) -> Answer[StatusData]:
    commands = next_commands(progress, place)
    again = command(place, "watch", progress.id)
    message = f"after {duration(timeout)} {progress.kind} {progress.id} still runs ({progress.status})"
    return Answer(
        data=status_data(progress, commands),
        show=partial(show, progress=progress, commands=commands),
        brief=progress.status,
        exit_code=Exit.RUNNING,
        warnings=[*progress.warnings, *waits_for],
        errors=[Problem(code="time_is_up", message=message, hint=f"it goes on; watch it again by: {again}")],
    )


def _detached(place: Place, backfill_id: str, progress: Progress | None) -> Answer[StatusData | None]:
    commands = commands_of(backfill_id, place)
    return Answer(
        data=None if progress is None else status_data(progress, commands),
        show=partial(show_commands, commands=commands),
        brief=backfill_id,
        exit_code=Exit.DETACHED,
        errors=[Problem(code="detached", message=f"detached; {backfill_id} goes on", hint=commands[0].command)],
    )
