"""Explicit SIMD vectors for Numba: 64 bytes wide, float32 x 16 or float64 x 8.

The order of operations is written down, never left to a vectoriser: a pixel's bits do not depend
on where it lies in a row, and LLVM splits the vectors on narrower machines without changing them.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = {types.float32: 16, types.float64: 8}


class Vector(types.Type):
    """Numba type of a vector of `dtype`."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


def _ir(dtype: Any) -> ir.VectorType:
    element = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(element, LANES[dtype])


def _constant(dtype: Any, value: float) -> ir.Constant:
    vector = _ir(dtype)
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * vector.count)


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    kind = arguments[0].type
    suffix = f"v{kind.count}f{32 if kind.element == ir.FloatType() else 64}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(arguments)), f"llvm.{name}.{suffix}"
    )
    return builder.call(function, arguments)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    if isinstance(array_type, types.CPointer):
        data = array
    else:
        data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _ir(array_type.dtype).as_pointer())


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, _ir(vector.dtype))


@intrinsic
def lanes_of(typing_context, array):  # type: ignore[no-untyped-def]
    """Numbers in a vector of the array's type, a constant to LLVM (itemsize is not)."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return ir.Constant(ir.IntType(64), LANES[array.dtype])

    return types.int64(array), code


@intrinsic
def registers(typing_context, like, labels):  # type: ignore[no-untyped-def]
    """Room on the stack for a vector a label, `labels` a tuple: its length is known to LLVM."""
    dtype, count = like.dtype, len(labels)

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.ArrayType(_ir(dtype), count)
        room = cgutils.alloca_once(builder, kind)
        room.align = 64
        return builder.bitcast(room, _ir(dtype).element.as_pointer())

    return types.CPointer(dtype)(like, labels), code


@intrinsic
def load(typing_context, array, index):  # type: ignore[no-untyped-def]
    """A vector from a flat array, at any index."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, array, *arguments)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return Vector(array.dtype)(array, types.intp), code


@intrinsic
def store(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """Put a vector into a flat array, at any index."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, array, *arguments[:2])
        builder.store(arguments[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, Vector(array.dtype)), code


@intrinsic
def splat(typing_context, value):  # type: ignore[no-untyped-def]
    """A vector with the same float in every lane."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = _ir(value)
        one = builder.insert_element(
            ir.Constant(vector, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0)
        )
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)

    return Vector(value)(value), code


@intrinsic
def fma(typing_context, a, b, c):  # type: ignore[no-untyped-def]
    """a * b + c, rounded once."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _call(builder, "fma", *arguments)

    return a(a, a, a), code


@intrinsic
def where_greater(typing_context, a, b, yes, no):  # type: ignore[no-untyped-def]
    """`yes` in the lanes where a > b, else `no`."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        first, second, *rest = arguments
        return builder.select(builder.fcmp_ordered(">", first, second), *rest)

    return a(a, a, a, a), code


@intrinsic
def exp(typing_context, a):  # type: ignore[no-untyped-def]
    """exp of vectors, for arguments up to 80; very small results end at about 1e-38."""
    dtype = a.dtype
    single = dtype == types.float32
    degree, lowest, bias, bits = (7, -87.0, 127, 23) if single else (13, -708.0, 1023, 52)
    # ln 2 in two parts: the first has so few bits that n times it is exact
    high = 0.693359375 if single else float.fromhex("0x1.62e42fee00000p-1")
    low = -2.12194440e-4 if single else 1.90821492927058770002e-10

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        integer = ir.VectorType(ir.IntType(dtype.bitwidth), LANES[dtype])

        def whole(value):  # type: ignore[no-untyped-def]
            return ir.Constant(integer, [ir.Constant(integer.element, value)] * integer.count)

        floor = _constant(dtype, lowest)
        (x,) = arguments
        x = builder.select(builder.fcmp_ordered(">", x, floor), x, floor)
        n = _call(builder, "rint", builder.fmul(x, _constant(dtype, 1 / math.log(2))))
        r = _call(builder, "fma", n, _constant(dtype, -high), x)
        r = _call(builder, "fma", n, _constant(dtype, -low), r)
        p = _constant(dtype, 1 / math.factorial(degree))
        for k in reversed(range(degree)):
            p = _call(builder, "fma", p, r, _constant(dtype, 1 / math.factorial(k)))
        power = builder.shl(builder.add(builder.fptosi(n, integer), whole(bias)), whole(bits))
        return builder.fmul(p, builder.bitcast(power, _ir(dtype)))

    return a(a), code


def _arithmetic(operation: Any, instruction: str) -> None:
    @intrinsic
    def call(typing_context, a, b):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return getattr(builder, instruction)(*arguments)

        return a(a, a), code

    @overload(operation)
    def vectors(a, b):  # type: ignore[no-untyped-def]
        return (lambda a, b: call(a, b)) if isinstance(a, Vector) and a == b else None


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_operation, _instruction)
