"""Protobuf's wire format, as far as feature values need it: numbered fields of four wire types.

A message is a sequence of fields, each a tag (field number * 8 + wire type) and what the wire type
says. Reading and writing it takes these few lines; the protobuf runtime costs the server 20 MB.

Source: protobuf's encoding guide, https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

from featurestore.errors import WireBroken

VARINT, FIXED64, SIZED, FIXED32 = 0, 1, 2, 5
"""Wire types: a number of 7 bits a byte; eight bytes; a length and that many bytes; four bytes."""

_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_WORD = (1 << 64) - 1

WireValue = int | bytes
"""An unsigned number for ``VARINT``, else bytes."""


def varint(number: int) -> bytes:
    """A number in 7 bits a byte, the lowest first; a negative one takes all ten bytes."""
    number &= _WORD
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, wire: int, value: WireValue) -> bytes:
    """One field of a message."""
    tag = varint(number << 3 | wire)
    if isinstance(value, int):
        return tag + varint(value)
    return tag + varint(len(value)) + value if wire == SIZED else tag + value


def signed(number: int) -> int:
    """What ``number``, read as unsigned, is as int64."""
    return number - (1 << 64) if number >> 63 else number


def fields(message: bytes) -> Iterator[tuple[int, int, WireValue]]:
    """Yield field number, wire type and value of each field, in order.

    Raises:
        WireBroken: if the message ends inside a field, or has a wire type we do not know.
    """
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, position = read_varint(message, position)
            yield number, wire, value
            continue
        if wire == SIZED:
            size, position = read_varint(message, position)
        elif (size := _FIXED_BYTES.get(wire, -1)) < 0:
            raise WireBroken(f"wire type {wire} at byte {position}")
        if position + size > len(message):
            raise WireBroken(f"field {number} ends after the message")
        yield number, wire, message[position : position + size]
        position += size


def read_varint(message: bytes, position: int) -> tuple[int, int]:
    """The unsigned number that starts at ``position``, and the position after it.

    Raises:
        WireBroken: if the message ends inside it, or it has more than ten bytes.
    """
    number = 0
    for index, byte in enumerate(message[position : position + 10]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number & _WORD, position + index + 1
    raise WireBroken(f"number at byte {position} has no end")
