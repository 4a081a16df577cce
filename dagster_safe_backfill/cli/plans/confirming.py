"""`--confirm`: how many partitions of an asset a person confirmed, though its limit is lower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dagster_safe_backfill.cli.answers.answer import CommandError, usage_error
from dagster_safe_backfill.cli.api.values import SHADOW
from dagster_safe_backfill.model.plans import confirmed_tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """The exact numbers of partitions that a person confirmed; see `Limits.max_partitions`.

    Attributes:
        only: That of the only asset.
        by_asset: A mapping from asset to the number of its partitions.
    """

    only: int | None = None
    by_asset: Mapping[str, int] = field(default_factory=dict[str, int])

    def of(self, assets: Sequence[str]) -> Mapping[str, int]:
        """Return a mapping from each asset of which a number is confirmed to the number.

        Raises:
            CommandError: There are several assets and one number, or an asset isn't one of these.
        """
        unknown = [name for name in self.by_asset if name not in assets]
        if unknown:
            raise usage_error(
                "bad_confirm", f"--confirm {unknown[0]}=…: it isn't launched; these are: {', '.join(assets)}"
            )
        if self.only is None:
            return self.by_asset
        if len(assets) > 1:
            raise usage_error(
                "bad_confirm",
                f"--confirm {self.only} doesn't say of which of {', '.join(assets)}",
                hint=f"say it of each: --confirm {assets[0]}=N",
            )
        return dict.fromkeys(assets, self.only)

    def tags(self, assets: Sequence[str]) -> dict[str, str]:
        """Return the tag by which the runs of a backfill of these assets know it.

        Raises:
            CommandError: As of `of`.
        """
        counts = self.of(assets)
        # Of the staged shape, the runs of x__shadow count.
        staged = {f"{name}{SHADOW}": count for name, count in counts.items()}
        return confirmed_tags(counts if len(assets) == 1 else {**counts, **staged})


def confirmed_of(texts: Sequence[str]) -> Confirmed:
    """Return what `--confirm N` or several `--confirm ASSET=N` say.

    Raises:
        CommandError: One of them is neither, or they contradict each other.
    """
    only, by_asset = list[int](), dict[str, int]()
    for text in texts:
        name, is_named, number = text.rpartition("=")
        if not number.isdecimal() or (is_named and not name):
            raise _bad(text)
        if is_named:
            if by_asset.setdefault(name, int(number)) != int(number):
                raise _bad(text)
        else:
            only.append(int(number))
    if len({*only}) + bool(by_asset) > 1:
        raise usage_error("bad_confirm", "give one --confirm N, or a --confirm ASSET=N for each asset")
    return Confirmed(only=only[0] if only else None, by_asset=by_asset)


def _bad(text: str) -> CommandError:
    return usage_error("bad_confirm", f"--confirm {text} is neither N nor ASSET=N, said once of each asset")
