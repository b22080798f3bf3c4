"""A REST request from its bytes: JSON, and the binary tensor extension behind it.

With the header ``Inference-Header-Content-Length: <n>``, the first n bytes are JSON; the bytes of
each input with the parameter ``binary_data_size`` follow, in the order of the inputs.

Source: https://github.com/kserve/open-inference-protocol, inference_rest.md and
extension_binary_data.md.
"""

from typing import Any

from serving import json_body
from serving.errors import BodyRefused
from serving.schema import show
from serving.v2.request import InferRequest, checked_id
from serving.v2.tensors import Data, checked_tensor, refused

HEADER_LENGTH = "Inference-Header-Content-Length"


def read_request(body: bytes, header_length: int | None = None) -> InferRequest:
    """Return the request that ``body`` holds.

    Args:
        body: JSON, or JSON with binary tensors behind it.
        header_length: how many bytes of it are JSON; None: all.

    Raises:
        BodyRefused: if it is not JSON, or its bytes are not those that it speaks of.
        FieldsRefused: naming what is wrong with which part of it.
    """
    if header_length is not None and header_length > len(body):
        raise BodyRefused(f"{HEADER_LENGTH} is {header_length:,}, the body has {len(body):,} bytes")
    document = json_body.decode(body if header_length is None else body[:header_length])
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise refused('the body has no list "inputs"; write {"inputs": [{"name": ...}]}', "inputs")
    tail = _Tail(memoryview(body), len(body) if header_length is None else header_length)
    request = InferRequest(
        checked_id(document.get("id")), {}, [], _parameters(document, "the body")
    )
    for number, tensor in enumerate(document["inputs"]):
        name = _name(tensor, f"inputs[{number}]")
        if name in request.tensors:
            raise refused(f"input {name!r} is there twice; send it once", name)
        data = _data(tensor, name, tail)
        request.tensors[name] = checked_tensor(
            name, tensor.get("datatype"), tensor.get("shape"), data
        )
    tail.check_used()
    request.outputs = _outputs(document.get("outputs"))
    return request


class _Tail:
    """The bytes behind the JSON, taken from front to back."""

    def __init__(self, body: memoryview, begin: int) -> None:
        self._body, self._at = body, begin

    def take(self, size: Any, name: str) -> memoryview:
        if type(size) is not int or size < 0:
            raise refused(
                f"input {name!r}: binary_data_size = {show(size)}; write its number of bytes", name
            )
        left = len(self._body) - self._at
        if size > left:
            raise BodyRefused(
                f"input {name!r} speaks of {show(size)} bytes behind the JSON, and {left:,} are "
                f"left; say in {HEADER_LENGTH} how many bytes the JSON has"
            )
        self._at += size
        return self._body[self._at - size : self._at]

    def check_used(self) -> None:
        left = len(self._body) - self._at
        if left:
            raise BodyRefused(f"{left:,} bytes behind the JSON belong to no input")


def _data(tensor: dict[str, Any], name: str, tail: _Tail) -> Data | None:
    parameters = _parameters(tensor, f"input {name!r}")
    if "shared_memory_region" in parameters:
        raise refused(f"input {name!r}: shared memory is not offered; send its data", name)
    if "binary_data_size" not in parameters:
        return tensor.get("data")
    if "data" in tensor:
        raise refused(f"input {name!r} has data and binary_data_size; send one of them", name)
    return tail.take(parameters["binary_data_size"], name)


def _outputs(given: Any) -> list[tuple[str, dict[str, Any]]]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise refused(f'outputs = {show(given)}; write a list, like [{{"name": "prediction"}}]')
    names = [_name(output, f"outputs[{number}]") for number, output in enumerate(given)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise refused(f"output {twice!r} is asked for twice; ask once", "outputs")
    said = [
        _parameters(output, f"output {name!r}") for name, output in zip(names, given, strict=True)
    ]
    return list(zip(names, said, strict=True))


def _name(part: Any, where: str) -> str:
    name = part.get("name") if isinstance(part, dict) else None
    if not isinstance(name, str):
        raise refused(f"{where} has no name; name the tensor", where.partition("[")[0])
    return name


def _parameters(part: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = part.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise refused(f"parameters of {where} = {show(parameters)}; write an object", "parameters")
    return parameters
