"""Explicit SIMD vectors for Numba: 64 bytes wide, float32 or uint32 x 16 or float64 x 8.

The order of operations is written down, never left to a vectoriser: a pixel's bits do not depend
on where it lies in a row, and LLVM splits the vectors on narrower machines without changing them.
A value may be several vectors, one per label, all in registers; a single vector broadcasts.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = {types.float32: 16, types.uint32: 16, types.float64: 8}
ELEMENTS = {
    types.float32: ir.FloatType(),
    types.uint32: ir.IntType(32),
    types.float64: ir.DoubleType(),
}
# ln 2 in two parts: the first has so few bits that its product with an integer is exact
LN2 = {
    types.float32: (0.693359375, -2.12194440e-4),
    types.float64: (float.fromhex("0x1.62e42fee00000p-1"), 1.90821492927058770002e-10),
}


class Vector(types.Type):
    """Numba type of `count` vectors of `dtype`."""

    def __init__(self, dtype: Any, count: int = 1) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Vector({dtype}, {count})")


def _ir(dtype: Any) -> ir.VectorType:
    return ir.VectorType(ELEMENTS[dtype], LANES[dtype])


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.ArrayType(_ir(vector.dtype), vector.count))


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
    return builder.gep(data, [index])


def _load(builder: Any, dtype: Any, pointer: Any) -> Any:
    wide = builder.bitcast(pointer, _ir(dtype).as_pointer())
    return builder.load(wide, align=dtype.bitwidth // 8)


def _store(builder: Any, dtype: Any, pointer: Any, vector: Any) -> None:
    wide = builder.bitcast(pointer, _ir(dtype).as_pointer())
    builder.store(vector, wide, align=dtype.bitwidth // 8)


def _further(builder: Any, pointer: Any, stride: Any, j: int) -> Any:
    return builder.gep(pointer, [builder.mul(stride, ir.Constant(ir.IntType(64), j))])


def _pack(builder: Any, parts: list[Any]) -> Any:
    value = ir.Constant(ir.ArrayType(parts[0].type, len(parts)), ir.Undefined)
    for j, part in enumerate(parts):
        value = builder.insert_value(value, part, j)
    return value


def _each(builder: Any, function: Callable[..., Any], *values: Any) -> Any:
    """Apply a function vector by vector; single vectors broadcast."""
    count = max(value.type.count for value in values)
    parts = [[builder.extract_value(v, j % v.type.count) for v in values] for j in range(count)]
    return _pack(builder, [function(*part) for part in parts])


def _widest(*kinds: Any) -> Any:
    return max(kinds, key=lambda kind: kind.count)


@intrinsic
def lanes_of(typing_context, array):
    """Lanes in a vector of the array's type, a constant to LLVM (itemsize is not)."""

    def code(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(64), LANES[array.dtype])

    return types.int64(array), code


@intrinsic
def registers(typing_context, like, labels):
    """Memory for one vector per label of the tuple `labels`, whose length is a constant to LLVM.

    On the stack, or in registers where LLVM knows every index.
    """
    dtype, count = like.dtype, len(labels)

    def code(context, builder, signature, arguments):
        room = cgutils.alloca_once(builder, ir.ArrayType(_ir(dtype), count))
        room.align = 64
        return builder.bitcast(room, _ir(dtype).element.as_pointer())

    return types.CPointer(dtype)(like, labels), code


@intrinsic
def zeros(typing_context, like, labels):
    """A vector of zeros for each entry of the tuple `labels`."""
    kind = Vector(like.dtype, len(labels))

    def code(context, builder, signature, arguments):
        return _pack(builder, [_constant(like.dtype, 0)] * kind.count)

    return kind(like, labels), code


@intrinsic
def load(typing_context, array, index):
    """Load a vector from a flat array, at any index."""

    def code(context, builder, signature, arguments):
        pointer = _pointer(context, builder, array, *arguments)
        return _pack(builder, [_load(builder, array.dtype, pointer)])

    return Vector(array.dtype)(array, types.intp), code


@intrinsic
def load_each(typing_context, array, index, stride, labels):
    """Load a vector for each entry of the tuple `labels`, `stride` apart."""
    kind = Vector(array.dtype, len(labels))

    def code(context, builder, signature, arguments):
        pointer, stride = _pointer(context, builder, array, *arguments[:2]), arguments[2]
        pointers = [_further(builder, pointer, stride, j) for j in range(kind.count)]
        return _pack(builder, [_load(builder, array.dtype, p) for p in pointers])

    return kind(array, types.intp, types.intp, labels), code


@intrinsic
def store(typing_context, array, index, value):
    """Store a vector in a flat array, at any index."""

    def code(context, builder, signature, arguments):
        pointer = _pointer(context, builder, array, *arguments[:2])
        _store(builder, array.dtype, pointer, builder.extract_value(arguments[2], 0))
        return context.get_dummy_value()

    return types.void(array, types.intp, Vector(array.dtype)), code


@intrinsic
def store_each(typing_context, array, index, stride, values):
    """Store several vectors in a flat array, `stride` apart."""

    def code(context, builder, signature, arguments):
        pointer, stride = _pointer(context, builder, array, *arguments[:2]), arguments[2]
        for j in range(values.count):
            vector = builder.extract_value(arguments[3], j)
            _store(builder, array.dtype, _further(builder, pointer, stride, j), vector)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, values), code


@intrinsic
def store_whole(typing_context, array, index, value):
    """Store a vector of integral values in a flat array of unsigned integers, at any index."""

    def code(context, builder, signature, arguments):
        integer = ir.VectorType(ir.IntType(array.dtype.bitwidth), LANES[value.dtype])
        number = builder.fptoui(builder.extract_value(arguments[2], 0), integer)
        pointer = _pointer(context, builder, array, *arguments[:2])
        builder.store(number, builder.bitcast(pointer, integer.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), code


@intrinsic
def prefetch(typing_context, array, index):
    """Prefetch a cache line; any index is allowed."""

    def code(context, builder, signature, arguments):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, number, number, number]),
            "llvm.prefetch.p0",
        )
        pointer = builder.bitcast(_pointer(context, builder, array, *arguments), byte)
        read, near, data = (ir.Constant(number, n) for n in (0, 2, 1))
        builder.call(function, [pointer, read, near, data])
        return context.get_dummy_value()

    return types.void(array, types.intp), code


@intrinsic
def splat(typing_context, value):
    """Broadcast a number to all lanes."""

    def code(context, builder, signature, arguments):
        vector = _ir(value)
        undefined = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(undefined, arguments[0], ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return _pack(builder, [builder.shuffle_vector(one, undefined, lanes)])

    return Vector(value)(value), code


@intrinsic
def splat_each(typing_context, array, index, stride, labels):
    """Broadcast a number for each entry of the tuple `labels`, `stride` apart in an array."""
    kind = Vector(array.dtype, len(labels))

    def code(context, builder, signature, arguments):
        pointer, stride = _pointer(context, builder, array, *arguments[:2]), arguments[2]
        vector = _ir(array.dtype)
        undefined = ir.Constant(vector, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        parts = []
        for j in range(kind.count):
            number = builder.load(_further(builder, pointer, stride, j))
            one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
            parts.append(builder.shuffle_vector(one, undefined, lanes))
        return _pack(builder, parts)

    return kind(array, types.intp, types.intp, labels), code


@intrinsic
def sqrt(typing_context, a):
    """Square roots."""

    def code(context, builder, signature, arguments):
        return _each(builder, lambda v: _call(builder, "sqrt", v), *arguments)

    return a(a), code


@intrinsic
def fma(typing_context, a, b, c):
    """a * b + c, rounded once."""

    def code(context, builder, signature, arguments):
        return _each(builder, lambda *v: _call(builder, "fma", *v), *arguments)

    return _widest(a, b, c)(a, b, c), code


@intrinsic
def inner(typing_context, a, b, c):
    """c + sum over the vectors of a * b, one fused product after the other."""

    def code(context, builder, signature, arguments):
        total = builder.extract_value(arguments[2], 0)
        for j in range(a.count):
            pair = (builder.extract_value(v, j) for v in arguments[:2])
            total = _call(builder, "fma", *pair, total)
        return _pack(builder, [total])

    return c(a, b, c), code


@intrinsic
def where_greater(typing_context, a, b, yes, no):
    """`yes` in the lanes where a > b, else `no`."""

    def code(context, builder, signature, arguments):
        def one(a, b, yes, no):
            return builder.select(builder.fcmp_ordered(">", a, b), yes, no)

        return _each(builder, one, *arguments)

    return Vector(yes.dtype, _widest(a, b, yes, no).count)(a, b, yes, no), code


@intrinsic
def exp(typing_context, a):
    """exp of vectors, for arguments up to 80; underflow ends at the smallest normal numbers."""
    dtype = a.dtype
    single = dtype == types.float32
    degree, lowest, bias, bits = (7, -87.0, 127, 23) if single else (13, -708.0, 1023, 52)
    high, low = LN2[dtype]

    def code(context, builder, signature, arguments):
        integer = ir.VectorType(ir.IntType(dtype.bitwidth), LANES[dtype])

        def whole(value):
            return ir.Constant(integer, [ir.Constant(integer.element, value)] * integer.count)

        def one(x):
            floor = _constant(dtype, lowest)
            # in this order a NaN stays one
            x = builder.select(builder.fcmp_ordered("<", x, floor), floor, x)
            n = _call(builder, "rint", builder.fmul(x, _constant(dtype, 1 / math.log(2))))
            r = _call(builder, "fma", n, _constant(dtype, -high), x)
            r = _call(builder, "fma", n, _constant(dtype, -low), r)
            p = _constant(dtype, 1 / math.factorial(degree))
            for k in reversed(range(degree)):
                p = _call(builder, "fma", p, r, _constant(dtype, 1 / math.factorial(k)))
            power = builder.shl(builder.add(builder.fptosi(n, integer), whole(bias)), whole(bits))
            return builder.fmul(p, builder.bitcast(power, _ir(dtype)))

        return _each(builder, one, *arguments)

    return a(a), code


@intrinsic
def log(typing_context, a):
    """log of vectors of positive normal numbers."""
    dtype = a.dtype
    single = dtype == types.float32
    terms, bits = (5, 23) if single else (12, 52)
    high, low = LN2[dtype]
    root = np.array(math.sqrt(0.5), np.float32 if single else np.float64)
    start = int(root.view(np.int32 if single else np.int64))

    def code(context, builder, signature, arguments):
        integer = ir.VectorType(ir.IntType(dtype.bitwidth), LANES[dtype])

        def whole(value):
            return ir.Constant(integer, [ir.Constant(integer.element, value)] * integer.count)

        def one(x):
            # x = 2^n m with m from sqrt(1/2) to sqrt(2), and log m = 2 artanh((m - 1) / (m + 1))
            number = builder.bitcast(x, integer)
            n = builder.ashr(builder.sub(number, whole(start)), whole(bits))
            m = builder.bitcast(builder.sub(number, builder.shl(n, whole(bits))), _ir(dtype))
            unit = _constant(dtype, 1)
            s = builder.fdiv(builder.fsub(m, unit), builder.fadd(m, unit))
            square = builder.fmul(s, s)
            p = _constant(dtype, 1 / (2 * terms - 1))
            for k in reversed(range(1, terms - 1)):
                p = _call(builder, "fma", p, square, _constant(dtype, 1 / (2 * k + 1)))
            twice = builder.fadd(s, s)
            found = _call(builder, "fma", builder.fmul(twice, square), p, twice)
            n = builder.sitofp(n, _ir(dtype))
            found = _call(builder, "fma", n, _constant(dtype, low), found)
            return _call(builder, "fma", n, _constant(dtype, high), found)

        return _each(builder, one, *arguments)

    return a(a), code


def _arithmetic(operation: Any, instruction: str) -> None:
    """Define an operator on vectors; unlike an overload, it compiles no function for each type."""

    @type_callable(operation)
    def kind(context):
        def typer(a, b):
            if isinstance(a, Vector) and isinstance(b, Vector):
                return _widest(a, b)
            return None

        return typer

    @lower_builtin(operation, Vector, Vector)
    def code(context, builder, signature, arguments):
        return _each(builder, getattr(builder, instruction), *arguments)


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
    (operator.and_, "and_"),
):
    _arithmetic(_operation, _instruction)
