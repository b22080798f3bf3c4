"""The reader of a model of request fields alone: there is no online store to open or to miss."""

from collections.abc import Mapping, Sequence

import numpy as np

from featurestore.online.reader import OnlineRows


class NoFeatures:
    """Reads nothing; a ``FeatureReader``."""

    failure: str | None = None
    """Never anything."""

    def read(self, keys: Mapping[str, Sequence[str | int | None]], at: np.ndarray) -> OnlineRows:  # noqa: ARG002
        """Return no columns for any row."""
        assert not keys, f"a plan without views has no join keys, but {sorted(keys)} came"
        return OnlineRows({}, {}, {})

    async def read_async(
        self, keys: Mapping[str, Sequence[str | int | None]], at: np.ndarray
    ) -> OnlineRows:
        """As ``read``."""
        return self.read(keys, at)

    def close(self) -> None:
        """Nothing is held."""
