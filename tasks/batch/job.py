"""``Job``: what all shards of a run have in common; small, and enough for a worker to score one."""

from typing import Literal

from pydantic import AwareDatetime

from headrace.plan import JoinKey
from headrace.spec import Part
from serving.runtimes.device import DeviceChoice

Features = Literal["offline", "online", "input"]
"""Where features come from: joined point-in-time from the offline store at each row's moment, the
latest values of the online store, or the input's own columns."""

FILE, ROW, REASON = "file", "row", "reason"
"""Columns that a row of the output has besides the input's: the file it comes from and why it was
rejected (rejected rows alone), and its position in that file, from 0."""


class InputColumns(Part):
    """What is read of the input, and what becomes of it."""

    read: tuple[str, ...]
    """The input's columns that are read, in its order."""
    keep: tuple[str, ...]
    """Those that the output has too."""
    given: dict[str, str]
    """The kind of each column that must come with a row, as ``featurestore.vectors`` names it."""
    optional: tuple[str, ...]
    """Those of ``given`` that may be missing in a row: numbers that the model sees as they are,
    where it is given its inputs rather than a request."""
    join_keys: tuple[JoinKey, ...]
    """The entity keys that features are looked up by."""
    features: dict[str, str]
    """By ``<view>__<feature>``: the column that holds it, where features are the input's."""
    taken: tuple[str, ...]
    """Outputs of transforms that the input has already, and that cannot be computed from it."""


class Job(Part):
    """What a worker must know of a run to score any of its shards."""

    output: str
    """Where parts and records go."""
    digest: str
    """The bundle that scores."""
    features: Features
    columns: InputColumns
    at: AwareDatetime | None
    """The moment of every row, for an input that has no column of moments."""
    stamps: dict[str, str]
    """What the features come from, as it was when the run was planned: a file and its stamp, or a
    view of the online store and how far it reached."""
    device: DeviceChoice
    """What the model runs on; a GPU adds up in another order, so it is part of the name."""
