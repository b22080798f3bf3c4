"""Registers of 32 bytes, and arrays at addresses: what Numba has no words for.

Numba compiles loops over numbers; these functions add to it by writing LLVM's own instructions.
LLVM turns them into what the processor has: AVX2, or AVX-512's own forms of the same.

A register holds a bit of each of 256 rows: row ``32 * k + p`` is bit k of byte ``lane(p)``. That
order makes the shuffles that look leaves up, which work in halves of 16 bytes, come out in the
order of rows.
"""

# ruff: noqa: ARG001, TID253 -- Numba reads these functions' signatures; only `build` imports them
# mypy: disable-error-code="untyped-decorator, no-untyped-call, call-overload"

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import populate_array

from serving.runtimes.forest.records import BYTES

compiled = njit(
    nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False
)
"""Marks a function of the kernel. It gets no wrapper for Python and none of Numba's memory
management, so that its machine code runs in a process without Numba."""

BYTE, LONG = ir.IntType(8), ir.IntType(64)
REGISTER = ir.VectorType(BYTE, BYTES)
_ANY = 1 << 40  # a length that nothing looks at


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__("Lanes")


lanes = _Lanes()
"""Numba's name for a register."""


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, REGISTER)


@intrinsic
def array(_: Any, address: Any, kind: Any) -> Any:
    """The numbers or records at an address, as an array whose length nobody knows or checks."""
    made = types.Array(kind.dtype, 1, "C")

    def emit(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        value = context.make_array(made)(context, builder)
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        populate_array(
            value,
            data=builder.inttoptr(arguments[0], value.data.type),
            shape=[ir.Constant(LONG, _ANY)],
            strides=[ir.Constant(LONG, size)],
            itemsize=ir.Constant(LONG, size),
            meminfo=None,
        )
        return value._getvalue()  # noqa: SLF001 -- as every user of make_array does

    return made(types.int64, kind), emit


@intrinsic
def load(_: Any, array: Any, place: Any) -> Any:
    """The register at so many bytes into an array; 32 divides the address."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return loaded(builder, at(context, builder, signature, arguments, 0, arguments[1]))

    return lanes(array, types.int64), emit


@intrinsic
def store(_: Any, array: Any, place: Any, value: Any) -> Any:
    """Write a register at so many bytes into an array."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored(builder, arguments[2], at(context, builder, signature, arguments, 0, arguments[1]))
        return context.get_dummy_value()

    return types.void(array, types.int64, lanes), emit


@intrinsic
def exponential(_: Any, function: Any, power: Any) -> Any:
    """What the C function at an address gives for a float32."""

    def emit(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])

    return types.float32(types.int64, types.float32), emit


def _binary(name: str, instruction: Callable[[Any, Any, Any], Any]) -> Any:
    def typed(_: Any, a: Any, b: Any) -> Any:
        def emit(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
            return instruction(builder, *arguments)

        return lanes(lanes, lanes), emit

    typed.__name__ = name
    return intrinsic(typed)


either = _binary("either", lambda builder, a, b: builder.or_(a, b))
both = _binary("both", lambda builder, a, b: builder.and_(a, b))
without = _binary("without", lambda builder, a, b: builder.and_(a, builder.not_(b)))
"""Bits of the first that are not in the second."""


@intrinsic
def none(_: Any) -> Any:
    """A register without a bit."""
    return lanes(), lambda *_: ir.Constant(REGISTER, None)


@intrinsic
def every(_: Any) -> Any:
    """A register with every bit."""
    return lanes(), lambda *_: ir.Constant(REGISTER, [255] * BYTES)


@intrinsic
def is_empty(_: Any, register: Any) -> Any:
    """Whether no bit is set."""
    wide = ir.IntType(8 * BYTES)

    def emit(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.icmp_unsigned("==", builder.bitcast(arguments[0], wide), wide(0))

    return types.boolean(lanes), emit


@compiled
def lane(p: int) -> Any:
    """The byte of a register that row p of 32 lies in."""
    return np.uint64(((p & 4) << 2) | ((p >> 3) << 2) | (p & 3))


def data(context: Any, builder: Any, signature: Any, arguments: Any, array: int) -> Any:
    """Emit the address of the array that is the argument of this number."""
    made = context.make_array(signature.args[array])(context, builder, arguments[array])
    return made.data


def at(  # noqa: PLR0917 -- the first four are what Numba gives to every intrinsic
    context: Any,
    builder: Any,
    signature: Any,
    arguments: Any,
    array: int,
    place: Any,
    kind: Any = REGISTER,
) -> Any:
    """Emit the address at so many bytes into such an array, of a value of this kind."""
    begin = data(context, builder, signature, arguments, array)
    byte = builder.gep(builder.bitcast(begin, BYTE.as_pointer()), [place])
    return builder.bitcast(byte, kind.as_pointer())


def loaded(builder: Any, address: Any) -> Any:
    """Emit the load of a register."""
    return builder.load(address, align=BYTES)


def stored(builder: Any, value: Any, address: Any) -> None:
    """Emit the store of a register."""
    builder.store(value, address, align=BYTES)
