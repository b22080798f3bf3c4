"""What a script of a client is told: where the server is, what it serves, what it must answer.

``python -m tests.serving.clients.<script> '<JSON of the fields>'``
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass
class World:
    """One server, and the answers of its model by XGBoost itself."""

    http: str
    grpc: str
    name: str
    version: str
    columns: list[str]
    rows: list[list[float]]
    answers: list[float]
    whole_rows: list[list[int]]
    whole_answers: list[float]
    bool_answers: list[float]
    moment: str = "2013-08-01T12:00:00Z"

    @property
    def predicted(self):
        """The answers for ``rows``: float32."""
        return np.array(self.answers, np.float32)

    @property
    def predicted_whole(self):
        """The answers for ``whole_rows``."""
        return np.array(self.whole_answers, np.float32)

    @property
    def predicted_bool(self):
        """The answers for ``whole_rows`` as booleans."""
        return np.array(self.bool_answers, np.float32)

    @property
    def by_column(self):
        """``rows``, a column at a time."""
        return list(zip(*self.rows, strict=True))


def fields_that_differ(generated: Any) -> list[str]:
    """The fields that a client's generated messages have, and our messages not or otherwise."""
    from serving.grpc.tensors import MESSAGES

    theirs, differing = generated.DESCRIPTOR.message_types_by_name, []

    def compare(path: str, ours: Any, other: Any) -> None:
        for field in other.fields:
            own = ours.fields_by_number.get(field.number)
            if own is None or _facts(own) != _facts(field):
                differing.append(f"{path}.{field.name}")
            elif field.message_type:
                compare(f"{path}.{field.name}", own.message_type, field.message_type)

    for name, message in MESSAGES.items():
        if name in theirs:
            compare(name, message.DESCRIPTOR, theirs[name])
    return sorted(differing)


def _facts(field: Any) -> tuple[str, int, bool]:
    return field.name, field.type, field.is_repeated


def to_argument(world: World) -> str:
    """What ``from_arguments`` reads."""
    return json.dumps(asdict(world))


def from_arguments() -> World:
    """The world that the script was started in."""
    return World(**json.loads(sys.argv[1]))
