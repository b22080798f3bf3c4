"""From an answer to the protocol's response: output tensors, as JSON or as raw bytes behind it."""

import struct
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from headrace.bundle import OUTPUT
from serving.dataplane import STATUS_NAMES
from serving.query import Answer, Query
from serving.v2.request import STATUS, USUAL, Reply, TensorQuery

_JSON = b"content-type: application/json\r\n"
_encode = msgspec.json.encode


@dataclass(slots=True)
class Output:
    """One output tensor."""

    name: str
    datatype: str
    values: list[Any]
    """float or None of FP32, str of BYTES; one a row."""
    binary: bool
    """Whether the caller wants its bytes."""

    def wire(self) -> bytes:
        """Its values as bytes: little-endian, a missing number as NaN, text with its length."""
        if self.datatype == "FP32":
            return np.array(self.values, np.float64).astype("<f4").tobytes()
        return b"".join(
            struct.pack("<I", len(text)) + text for text in map(str.encode, self.values)
        )


def outputs(answer: Answer) -> list[Output]:
    """The output tensors that the caller of ``answer`` wants, in its order."""
    statuses = None
    found = []
    for name, binary in reply_of(answer.query).outputs:
        if name == OUTPUT:
            found.append(Output(name, "FP32", answer.values, binary))
        else:
            statuses = answer.statuses if statuses is None else statuses
            codes = statuses[name.removeprefix(STATUS)].tolist()
            found.append(Output(name, "BYTES", [STATUS_NAMES[code] for code in codes], binary))
    return found


def reply_of(query: Query) -> Reply:
    """What the caller of ``query`` wants back."""
    return query.reply if isinstance(query, TensorQuery) else USUAL


def parameters(answer: Answer) -> dict[str, Any]:
    """What a response says beside its outputs: where keys were sent, whether it is degraded."""
    said = reply_of(answer.query).parameters
    return said if answer.query.instances is None else {**said, "degraded": answer.degraded}


def render(answer: Answer) -> tuple[bytes, bytes]:
    """Return the header lines and the body of a REST response."""
    if type(answer.query) is Query:
        return _JSON, _usual(answer)
    described, tail = [], b""
    for output in outputs(answer):
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": [len(output.values)],
        }
        if output.binary:
            raw = output.wire()
            tensor["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            tensor["data"] = output.values
        described.append(tensor)
    query = answer.query
    document: dict[str, Any] = {
        "model_name": query.model.release.endpoint,
        "model_version": query.model.version,
        "id": query.request_id,
    }
    if said := parameters(answer):
        document["parameters"] = said
    head = _encode(document | {"outputs": described})
    return (_binary(len(head)), head + tail) if tail else (_JSON, head)


def _usual(answer: Answer) -> bytes:
    """The response of one FP32 output, put together by hand: a third of the time of encoding it."""
    query = answer.query
    return (
        f'{{"model_name":"{query.model.release.endpoint}","model_version":"{query.model.version}",'
        f'"id":{_encode(query.request_id).decode()},"outputs":[{{"name":"{OUTPUT}",'
        f'"datatype":"FP32","shape":[{query.rows}],"data":{_encode(answer.values).decode()}}}]}}'
    ).encode()


def _binary(header_length: int) -> bytes:
    lines = f"inference-header-content-length: {header_length}\r\n"
    return b"content-type: application/octet-stream\r\n" + lines.encode()
