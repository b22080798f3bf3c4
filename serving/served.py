"""A release with everything that answers for it, as the data plane and the edges see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from featurestore.freshness import ReadStatus
from featurestore.online.reader import OnlineRows
from headrace.release import Release
from serving.predictor import Predictor
from serving.schema import RequestSchema

_NAMES = {status.value: status.name.lower() for status in ReadStatus}
STATUS_NAMES = tuple(_NAMES.get(code, "") for code in range(max(_NAMES) + 1))
"""The words for what became of a view's read, at the position of its code; some codes are the
join's alone and have none."""


class FeatureReader(Protocol):
    """Where feature values come from; ``featurestore.online.reader.OnlineReader`` is the real one.

    Safe to call from several threads: large requests are answered on threads of their own.
    """

    def read(self, keys: Mapping[str, Sequence[str | int | None]], at: np.ndarray) -> OnlineRows:
        """Return the values known at ``at`` (datetime64[us], UTC) for each row's keys."""

    async def read_async(
        self, keys: Mapping[str, Sequence[str | int | None]], at: np.ndarray
    ) -> OnlineRows:
        """As ``read``, leaving the event loop free where the store has to be asked."""

    @property
    def failure(self) -> str | None:
        """Why the store failed when it was last asked; None where it answered."""

    def close(self) -> None:
        """Let go of the store."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A release with everything that answers for it; replaced as a whole, never changed."""

    release: Release
    predictor: Predictor
    reader: FeatureReader
    schema: RequestSchema

    @cached_property  # written into every answer
    def version(self) -> str:
        """The short form of the digest, as people and the V2 protocol name it."""
        return self.predictor.digest[:12]
