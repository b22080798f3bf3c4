"""From a compiler's object file to machine code that runs wherever it is mapped.

A linker is not at hand where Python is, and the kernel needs little of one: it asks nothing from
outside, and refers to its own constants by their distance. So its sections are laid one behind the
other, and each reference becomes the distance that results.

Source: System V ABI, AMD64 supplement: ELF-64 headers, symbols and relocations.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from serving.errors import ServingError

_KEPT = 0x2  # SHF_ALLOC: a section that is there when the program runs
_PROGRAM, _SYMBOLS, _ADDENDS = 1, 2, 4  # SHT_PROGBITS, SHT_SYMTAB, SHT_RELA
_RELATIVE = {2, 4}  # R_X86_64_PC32, R_X86_64_PLT32: symbol + addend - place, in 32 bits
_ALIGNMENT = 64


class LinkFailed(ServingError):
    """The object file needs more than this linker can do."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


def link(object_file: bytes, symbol: str) -> tuple[bytes, int]:
    """Return the machine code, and how many bytes into it a function begins.

    Args:
        object_file: ELF-64 for x86-64, position-independent.
        symbol: the name of the function.

    Raises:
        LinkFailed: if it refers to something outside, or in a way that is no distance.
    """
    sections = list(_sections(object_file))
    image, places = _image(object_file, sections)
    (table,) = (section for section in sections if section.kind == _SYMBOLS)
    symbols = list(_symbols(object_file, table, sections[table.link]))
    for section in sections:
        if section.kind == _ADDENDS and section.info in places:
            addends = _bytes(object_file, section)
            for place, kind, number, addend in struct.iter_unpack("<QIIq", addends):
                name, home, value = symbols[number]
                if home not in places or kind not in _RELATIVE:
                    raise LinkFailed(f"a reference of kind {kind} to {name or 'a section'}")
                at = places[section.info] + place
                struct.pack_into("<i", image, at, places[home] + value + addend - at)
    (entry,) = (places[home] + value for name, home, value in symbols if name == symbol)
    return bytes(image), entry


def _sections(file: bytes) -> Iterator[_Section]:
    if file[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", file, 18) != (62,):
        raise LinkFailed("it is no ELF-64 file for x86-64")
    (begin,) = struct.unpack_from("<Q", file, 40)
    size, count = struct.unpack_from("<HH", file, 58)
    for i in range(count):
        yield _Section(*struct.unpack_from("<IIQQQQIIQQ", file, begin + i * size))


def _image(file: bytes, sections: list[_Section]) -> tuple[bytearray, Mapping[int, int]]:
    """Lay the sections that a program keeps one behind the other; return where each begins."""
    image, places = bytearray(), {}
    for number, section in enumerate(sections):
        if section.flags & _KEPT and section.kind == _PROGRAM:
            image += bytes(-len(image) % _ALIGNMENT)
            places[number] = len(image)
            image += _bytes(file, section)
    return image, places


def _symbols(file: bytes, table: _Section, names: _Section) -> Iterator[tuple[str, int, int]]:
    """Each symbol's name, section and place in it."""
    text = _bytes(file, names)
    for name, _, _, home, value, _ in struct.iter_unpack("<IBBHQQ", _bytes(file, table)):
        yield text[name : text.index(b"\0", name)].decode(), home, value


def _bytes(file: bytes, section: _Section) -> bytes:
    return file[section.offset : section.offset + section.size]
