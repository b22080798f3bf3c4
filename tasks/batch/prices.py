"""What an hour of a worker costs, by kind of cluster: ``settings/prices.toml``.

::

    currency = "USD"

    [worker_hour]
    local = 0.00
    kubernetes = 0.12
"""

import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from headrace.errors import SettingRefused
from headrace.spec import Part

_FILE = Path("settings") / "prices.toml"


class Prices(Part):
    """Prices of workers."""

    currency: str = "USD"
    worker_hour: dict[str, float] = Field(default_factory=lambda: {"here": 0.0, "local": 0.0})
    """By kind of cluster (``here``, ``local``, ``address``, ``cuda``, ``kubernetes``)."""

    def of(self, kind: str, worker_seconds: float) -> float | None:
        """The price of some worker-seconds; None if this kind has none."""
        hour = self.worker_hour.get(kind)
        return None if hour is None else hour * worker_seconds / 3600


def read_prices(path: Path = _FILE) -> Prices:
    """Return the price table; without a file this machine's own workers cost nothing.

    Raises:
        SettingRefused: for a file that is no TOML, or has a wrong name or value.
    """
    if not path.exists():
        return Prices()
    try:
        return Prices.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise SettingRefused(str(path), "(file)", f"it is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"])
        raise SettingRefused(f"{path}: {field}", first["input"], first["msg"].lower()) from error
