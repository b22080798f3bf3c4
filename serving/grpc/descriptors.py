"""From the text of messages to their classes, in a pool of descriptors of our own.

protobuf keeps the messages that generated code registers in one table a process, where a name can
be taken once: KServe's and Triton's clients cannot be imported together for that reason. A pool of
our own collides with neither, needs no generated files, and its messages are parsed and written by
protobuf's C code all the same.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.message import DecodeError

_SCALARS = {
    name: FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}
_TOKEN = re.compile(r"\w+|[{}=;<>,]")


def message_classes(package: str, text: str) -> dict[str, Any]:
    """Return the class of each message at the top of ``text``, by name.

    Args:
        package: the package that the messages lie in.
        text: messages of proto3: scalars, messages, ``repeated``, ``map<string, ...>``, ``oneof``.
    """
    file = FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    tokens = _Tokens(text)
    while tokens.peek():
        _message(tokens, file.message_type.add())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (
        pool.FindMessageTypeByName(f"{package}.{message.name}") for message in file.message_type
    )
    return {descriptor.name: message_factory.GetMessageClass(descriptor) for descriptor in found}


def parser(kind: Any) -> Callable[[bytes], Any]:
    """Return what reads messages of ``kind``: None for bytes that are no such message.

    An error would be told to the caller as the server's own, and each logged with its traceback.
    """
    read = kind.FromString

    def parse(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return None

    return parse


class _Tokens:
    def __init__(self, text: str) -> None:
        self._tokens: Iterator[str] = iter(_TOKEN.findall(text))
        self._next = next(self._tokens, "")

    def peek(self) -> str:
        return self._next

    def take(self, *wanted: str) -> str:
        token, self._next = self._next, next(self._tokens, "")
        if wanted and token not in wanted:
            raise ValueError(f"{token!r} stands where {' or '.join(wanted)} should")
        return token


def _message(tokens: _Tokens, message: DescriptorProto) -> None:
    tokens.take("message")
    message.name = tokens.take()
    tokens.take("{")
    while tokens.peek() != "}":
        if tokens.peek() == "message":
            _message(tokens, message.nested_type.add())
        elif tokens.peek() == "oneof":
            _oneof(tokens, message)
        else:
            _field(tokens, message)
    tokens.take("}")


def _oneof(tokens: _Tokens, message: DescriptorProto) -> None:
    tokens.take("oneof")
    message.oneof_decl.add(name=tokens.take())
    tokens.take("{")
    while tokens.peek() != "}":
        _field(tokens, message).oneof_index = len(message.oneof_decl) - 1
    tokens.take("}")


def _field(tokens: _Tokens, message: DescriptorProto) -> FieldDescriptorProto:
    kind, field = tokens.take(), message.field.add()
    field.label = field.LABEL_REPEATED if kind in ("repeated", "map") else field.LABEL_OPTIONAL
    value = tokens.take() if kind == "repeated" else _map_value(tokens) if kind == "map" else kind
    field.name = tokens.take()
    tokens.take("=")
    field.number = int(tokens.take())
    tokens.take(";")
    _set_type(field, _map_entry(message, field.name, value) if kind == "map" else value)
    return field


def _map_value(tokens: _Tokens) -> str:
    for token in ("<", "string", ","):
        tokens.take(token)
    value = tokens.take()
    tokens.take(">")
    return value


def _map_entry(message: DescriptorProto, field: str, value: str) -> str:
    """A map is a list of messages with a key and a value: that is how it lies on the wire."""
    entry = message.nested_type.add(name=field.title().replace("_", "") + "Entry")
    entry.options.map_entry = True
    for number, (name, kind) in enumerate((("key", "string"), ("value", value)), start=1):
        part = entry.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        _set_type(part, kind)
    return str(entry.name)


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = field.TYPE_MESSAGE
        field.type_name = kind
