"""How many rejected rows a run bears: beyond it nothing is committed, and the reasons are told."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Self

from headrace.errors import HeadraceError, UsageError
from headrace.spec import Part
from tasks.batch.job import REASON
from tasks.batch.output import ShardRecord
from tasks.batch.parts import File, read_part

_PARTS_READ = 50  # of rejected rows, for their reasons: enough to see what is wrong
_REASONS_TOLD = 5


class LimitRefused(UsageError):
    """A limit that is neither a share nor a count."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"{text!r} is no limit: write a share, 1% or 0.5%, or a count, 1000")


class TooManyRejected(HeadraceError):
    """A run with more rejected rows than it bears."""

    def __init__(
        self, rejected: int, rows: int, limit: "RejectedLimit", reasons: str, place: str
    ) -> None:
        self.rejected, self.rows, self.limit, self.reasons = rejected, rows, limit, reasons
        super().__init__(
            f"{rejected:,} of {rows:,} rows could not be scored ({rejected / rows:.2%}), more than "
            f"--max-rejected {limit}: {reasons}. Nothing is committed. Look at {place} (columns "
            "file, row, reason), mend the input, or raise the limit, and run the command again."
        )


class RejectedLimit(Part):
    """At most this share of the rows, or this many."""

    share: float | None = None
    count: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a limit as it is written on a command line.

        >>> print(RejectedLimit.parse("0.5%"), RejectedLimit.parse("1000"))
        0.5% 1000

        Raises:
            LimitRefused: for anything else.
        """
        if found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", text.strip()):
            percent = float(found[1])
            if percent <= 100:
                return cls(share=percent / 100)
        if re.fullmatch(r"[0-9]+", text.strip()):
            return cls(count=int(text))
        raise LimitRefused(text)

    def allows(self, rejected: int, rows: int) -> bool:
        """Whether so many rejected rows among all rows of a run are within the limit."""
        if self.count is not None:
            return rejected <= self.count
        return rejected <= (self.share or 0.0) * rows

    def __str__(self) -> str:
        """As it is written on a command line."""
        return str(self.count) if self.count is not None else f"{(self.share or 0.0) * 100:g}%"


class RejectedRows:
    """Counts what a run's shards reject, and stops it as soon as it is certainly too much."""

    def __init__(self, output: str, *, rows: int, limit: RejectedLimit | None) -> None:
        """Args are where the parts are, the rows of the whole run, and what it bears; None: all."""
        self._output, self._rows, self._limit = output, rows, limit
        self._files: list[File] = []
        self._count = 0

    def add(self, record: ShardRecord) -> None:
        """Count a shard that is done.

        Raises:
            TooManyRejected: if the run can no longer stay within its limit.
        """
        if record.rejected is None:
            return
        self._files.append(record.rejected)
        self._count += record.rejected.rows
        if self._limit is None or self._limit.allows(self._count, self._rows):
            return
        told = ", ".join(
            f"{count:,} x {text}" for text, count in top_reasons(self._output, self._files)
        )
        place = f"{self._output}/parts/{self._files[0].name}"
        raise TooManyRejected(self._count, self._rows, self._limit, told, place)


def top_reasons(output: str, files: Iterable[File]) -> list[tuple[str, int]]:
    """The commonest reasons and how often each was found, in the first parts of rejected rows."""
    counts: Counter[str] = Counter()
    for file in islice(files, _PARTS_READ):
        for pair in read_part(output, file)[REASON].value_counts().to_pylist():
            counts[pair["values"]] += pair["counts"]
    return counts.most_common(_REASONS_TOLD)
