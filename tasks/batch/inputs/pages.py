"""How large the pages of a Parquet column chunk become in memory, from their headers alone.

A page header is a Thrift struct in the compact protocol, just before its page. Its fields 2 and 3
are the page's uncompressed and compressed size.

Sources: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
(PageHeader), https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any

_HEADER_BYTES = 1 << 12
_STRUCT, _LIST, _SET, _MAP, _BINARY, _DOUBLE, _BYTE = 12, 9, 10, 11, 8, 7, 3
_TRUE, _FALSE = 1, 2
_DICTIONARY_PAGE = 2


def largest_pages(source: Any, chunk: Any) -> int:
    """The bytes that the largest page of a chunk takes uncompressed, its dictionary added.

    Args:
        source: the file, open to read and seek.
        chunk: the chunk's metadata in the footer.

    Raises:
        ValueError: if there is no page header where one must be.
    """
    position = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        position = min(position, chunk.dictionary_page_offset)
    end = position + chunk.total_compressed_size
    largest = dictionary = 0
    while position < end:
        source.seek(position)
        header = _Compact(bytes(source.read(min(_HEADER_BYTES, end - position))))
        kind, uncompressed, compressed = header.page()
        if kind == _DICTIONARY_PAGE:
            dictionary = uncompressed
        largest = max(largest, uncompressed)
        position += header.position + compressed
    return largest + dictionary


class _Compact:
    """As much of Thrift's compact protocol as it takes to step through a page header."""

    def __init__(self, data: bytes) -> None:
        self._data, self.position = data, 0

    def page(self) -> tuple[int, int, int]:
        """The page's type, uncompressed and compressed size; stands behind the header after."""
        found: dict[int, int] = {}
        try:
            for field, kind in self._fields():
                if field in (1, 2, 3):
                    found[field] = self._integer()
                else:
                    self._skip(kind)
            type_, uncompressed, compressed = (found[field] for field in (1, 2, 3))
        except (IndexError, KeyError) as error:
            raise ValueError("a page header is damaged") from error
        if uncompressed < 0 or compressed < 0:
            raise ValueError("a page header claims a negative size")
        return type_, uncompressed, compressed

    def _fields(self) -> Any:
        field = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 0x0F
            field = field + delta if delta else self._integer()
            yield field, kind

    def _skip(self, kind: int) -> None:
        if kind in (_TRUE, _FALSE):
            return
        if kind == _BYTE:
            self._byte()
        elif kind == _DOUBLE:
            self.position += 8
        elif kind == _BINARY:
            length = self._varint()
            self.position += length
        elif kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            for _ in range(min(count, len(self._data))):
                self._skip_element(head & 0x0F)
        elif kind == _STRUCT:
            for _, inner in self._fields():
                self._skip(inner)
        elif kind == _MAP:
            raise ValueError("a page header holds a map")
        else:
            self._varint()

    def _skip_element(self, kind: int) -> None:
        # In a list a bool is a byte of its own; in a field it is part of the field's head.
        if kind in (_TRUE, _FALSE):
            self._byte()
        else:
            self._skip(kind)

    def _byte(self) -> int:
        byte = self._data[self.position]
        self.position += 1
        return byte

    def _varint(self) -> int:
        result = shift = 0
        while True:
            byte = self._byte()
            result |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return result
            shift += 7

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)
