"""The two hot steps: a tree as a multiplexer over bits, and leaves looked up by shuffles.

Both are written as LLVM instructions by Python loops, so that they come out as straight lines of
code for each height of a tree, without a branch or an address to wait for.
"""

# ruff: noqa: ARG001, TID253 -- Numba reads these functions' signatures; only `build` imports them
# mypy: disable-error-code="untyped-decorator, no-untyped-call"

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from serving.runtimes.forest.compiled.registers import (
    BYTE,
    LONG,
    REGISTER,
    at,
    data,
    loaded,
    stored,
)
from serving.runtimes.forest.records import BYTES, GROUP

_WORDS = ir.VectorType(ir.IntType(16), BYTES // 2)
_FLOATS = ir.VectorType(ir.FloatType(), 8)
_TABLE = ir.VectorType(BYTE, 16)
_INDEX = ir.IntType(32)


@intrinsic(prefer_literal=True)
def take_turns(_: Any, conditions: Any, slots: Any, first: Any, turns: Any, height: Any) -> Any:
    """Write the turns that all rows take in a full tree: eight bit vectors, the last turn first.

    They are the bits of the number of the leaf that a row comes to, the lowest first; those above
    the tree's height are 0. The bit of the root's condition chooses between the bits of its
    children's, and so on: bitwise multiplexers in place of branches. A tree of height h takes
    2**h loads and as many choices for 256 rows.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = _turns(context, builder, signature, arguments)[::-1]
        for i, bit in enumerate([*bits, *[ir.Constant(REGISTER, None)] * (8 - len(bits))]):
            place = ir.Constant(LONG, i * BYTES)
            stored(builder, bit, at(context, builder, signature, arguments, 3, place))
        return context.get_dummy_value()

    return types.void(conditions, slots, types.int64, turns, height), emit


@intrinsic
def number(_: Any, bits: Any, first: Any, numbers: Any) -> Any:
    """Write the numbers whose bits are eight bit vectors, the lowest first: uint8, 32 rows by 8."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = [builder.add(arguments[1], ir.Constant(LONG, i * BYTES)) for i in range(8)]
        planes = [loaded(builder, at(context, builder, signature, arguments, 0, p)) for p in places]
        words = [builder.bitcast(plane, _WORDS) for plane in planes]
        for i, made in enumerate(_transposed(builder, words)):
            out = at(context, builder, signature, arguments, 2, ir.Constant(LONG, i * BYTES))
            stored(builder, builder.bitcast(made, REGISTER), out)
        return context.get_dummy_value()

    return types.void(bits, types.int64, numbers), emit


@intrinsic(prefer_literal=True)
def add_leaves(  # noqa: PLR0917 -- an intrinsic takes no keywords
    _: Any, index: Any, group: Any, leaf_bytes: Any, leaves: Any, sums: Any, first: Any, tables: Any
) -> Any:
    """Add to the sums of 32 rows the leaves that their numbers name.

    A shuffle instruction looks up 32 bytes at once in a table of 16. A float is four bytes, so four
    lookups a table, put together again; a number that belongs to another table has its top bit set,
    for which the instruction gives zero.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = builder.mul(arguments[1], ir.Constant(LONG, GROUP))
        numbers = loaded(builder, at(context, builder, signature, arguments, 0, rows))
        picks = [_of_table(builder, numbers, table) for table in range(tables.literal_value)]

        def table(number: int, byte: int) -> Any:
            place = builder.add(arguments[3], ir.Constant(LONG, 64 * number + 16 * byte))
            bytes_at = at(context, builder, signature, arguments, 2, place, _TABLE)
            both_halves = ir.Constant(ir.VectorType(_INDEX, 32), [*range(16)] * 2)
            undefined = ir.Constant(_TABLE, ir.Undefined)
            return builder.shuffle_vector(builder.load(bytes_at, align=16), undefined, both_halves)

        found = []
        for byte in range(4):
            looked = [_shuffle(builder, table(i, byte), pick) for i, pick in enumerate(picks)]
            found.append(_all_of(builder, looked))
        sums_at = builder.mul(builder.add(arguments[5], rows), ir.Constant(LONG, 4))
        for i, leaf in enumerate(_floats(builder, found)):
            place = builder.add(sums_at, ir.Constant(LONG, BYTES * i))
            sum_at = at(context, builder, signature, arguments, 4, place, _FLOATS)
            total = builder.fadd(builder.load(sum_at, align=BYTES), leaf)
            builder.store(total, sum_at, align=BYTES)
        return context.get_dummy_value()

    return types.void(index, types.int64, leaf_bytes, types.int64, sums, types.int64, tables), emit


def _turns(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """Each level's turns, of the tree whose slots begin at the third argument."""
    height = signature.args[4].literal_value
    conditions = at(context, builder, signature, arguments, 0, ir.Constant(LONG, 0), BYTE)
    slots = builder.gep(data(context, builder, signature, arguments, 1), [arguments[2]])
    turns: list[Any] = []

    def condition(node: int) -> Any:
        slot = builder.load(builder.gep(slots, [ir.Constant(LONG, node - 1)]))
        bits = builder.gep(conditions, [builder.zext(slot, LONG)])
        return loaded(builder, builder.bitcast(bits, REGISTER.as_pointer()))

    def chosen(node: int, level: int, below: int) -> Any:
        if level == below:
            return condition(node)
        left, right = (chosen(child, level + 1, below) for child in (2 * node, 2 * node + 1))
        turn = turns[level]
        return builder.or_(builder.and_(left, builder.not_(turn)), builder.and_(right, turn))

    for level in range(height):
        turns.append(chosen(1, 0, level))  # noqa: PERF401 -- chosen reads the turns so far
    return turns


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Swap row and bit of the 8 by 8 bits in each byte, by halves (Hacker's Delight, 7-3)."""
    rows = list(rows)
    for distance, mask in ((4, 0x0F0F), (2, 0x3333), (1, 0x5555)):
        shift, kept = (ir.Constant(_WORDS, [value] * 16) for value in (distance, mask))
        for i in (i for i in range(8) if not i & distance):
            low, high = rows[i], rows[i + distance]
            swap = builder.and_(builder.xor(builder.lshr(low, shift), high), kept)
            rows[i] = builder.xor(low, builder.shl(swap, shift))
            rows[i + distance] = builder.xor(high, swap)
    return rows


def _of_table(builder: Any, numbers: Any, table: int) -> Any:
    """Numbers within the table of 16 keep their low bits; the top bit of all others is set."""
    moved = builder.xor(numbers, ir.Constant(REGISTER, [16 * table] * BYTES))
    return builder.add(moved, ir.Constant(REGISTER, [0x70] * BYTES))


def _shuffle(builder: Any, table: Any, numbers: Any) -> Any:
    kind = ir.FunctionType(REGISTER, [REGISTER, REGISTER])
    shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pshuf.b")
    return builder.call(shuffle, [table, numbers])


def _all_of(builder: Any, values: Sequence[Any]) -> Any:
    joined = values[0]
    for value in values[1:]:
        joined = builder.or_(joined, value)
    return joined


def _floats(builder: Any, planes: Sequence[Any]) -> list[Any]:
    """Join four planes of bytes to four registers of floats, rows in order."""
    low, high = (
        [_interleaved(builder, a, b, 1, upper=upper) for upper in (False, True)]
        for a, b in (planes[:2], planes[2:])
    )
    joined = [
        _interleaved(builder, low[i], high[i], 2, upper=upper)
        for i in (0, 1)
        for upper in (False, True)
    ]
    return [builder.bitcast(each, _FLOATS) for each in joined]


def _interleaved(builder: Any, a: Any, b: Any, width: int, *, upper: bool) -> Any:
    """Alternate the elements of two registers, within each half (AVX2: vpunpckl, vpunpckh)."""
    count = BYTES // width
    kind = ir.VectorType(ir.IntType(8 * width), count)
    first = [half + i for half in (0, count // 2) for i in range(count // 4)]
    chosen = [i + (count // 4 if upper else 0) for i in first]
    order = [i for one in chosen for i in (one, count + one)]
    mask = ir.Constant(ir.VectorType(_INDEX, count), order)
    return builder.shuffle_vector(builder.bitcast(a, kind), builder.bitcast(b, kind), mask)
