"""Sixteen numbers at a time in compiled kernels, whatever the compiler makes of loops.

numba vectorises a loop where LLVM can prove that it may, and keeps short inner loops (the 16 or 32
channels of one pixel) scalar. These functions name the vectors instead: `load` and `store` move 16
neighbouring elements of an array to and from a `Lanes` value, on which +, -, *, <, > and `choose`
work lane by lane. LLVM lowers them to what the processor has, from AVX-512 to none at all.

bfloat16, which numpy lacks, is the upper half of a float32: an array of it is passed as uint16,
`load` widens it, `store` rounds to the nearest, ties to even, as torch does. Nothing is checked:
offsets are in elements, and the caller sees to it that 16 elements from there are inside.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model
from numba.np.arrayobj import make_array

WIDTH = 16
_I32 = ir.VectorType(ir.IntType(32), WIDTH)


class Lanes(types.Type):
    """The numba type of 16 numbers of type `element` (float32, float64, uint8 or boolean)."""

    def __init__(self, element: types.Type):
        self.element = element
        super().__init__(f"Lanes({element})")


_VECTORS = {
    types.float32: ir.VectorType(ir.FloatType(), WIDTH),
    types.float64: ir.VectorType(ir.DoubleType(), WIDTH),
    types.uint16: ir.VectorType(ir.IntType(16), WIDTH),
    types.uint8: ir.VectorType(ir.IntType(8), WIDTH),
    types.boolean: ir.VectorType(ir.IntType(1), WIDTH),
}


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        super().__init__(manager, lanes, _VECTORS[lanes.element])


def _filled(vector: ir.VectorType, value) -> ir.Constant:
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * vector.count)


def _pointer(context, builder, array_type, array, at, vector):
    data = make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())


def _widen(builder, bits):
    wide = builder.shl(builder.zext(bits, _I32), _filled(_I32, 16))
    return builder.bitcast(wide, _VECTORS[types.float32])


def _narrow(builder, lanes):
    bits = builder.bitcast(lanes, _I32)
    odd = builder.and_(builder.lshr(bits, _filled(_I32, 16)), _filled(_I32, 1))
    rounded = builder.add(bits, builder.add(odd, _filled(_I32, 0x7FFF)))
    nan = builder.fcmp_unordered("uno", lanes, lanes)
    upper = builder.select(nan, _filled(_I32, 0x7FC00000), rounded)
    return builder.trunc(builder.lshr(upper, _filled(_I32, 16)), _VECTORS[types.uint16])


@intrinsic
def load(typing, array, at):
    """16 elements of a flat array from `at`; of uint16 (bfloat16), as float32."""
    bfloat16 = array.dtype == types.uint16
    lanes = Lanes(types.float32 if bfloat16 else array.dtype)
    vector = _VECTORS[array.dtype]

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, array, *arguments, vector)
        values = builder.load(place, align=array.dtype.bitwidth // 8)
        return _widen(builder, values) if bfloat16 else values

    return lanes(array, types.intp), generate


@intrinsic
def store(typing, array, at, lanes):
    """Write 16 elements of a flat array from `at`; to uint16 (bfloat16), rounded."""
    narrower = array.dtype == types.uint16 and lanes.element == types.float32

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, array, *arguments[:2], _VECTORS[array.dtype])
        values = _narrow(builder, arguments[2]) if narrower else arguments[2]
        builder.store(values, place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def move(typing, source, at, target, to):
    """Copy 16 elements of one flat array to another of the same type, as they are."""
    bits = source.dtype.bitwidth
    vector = ir.VectorType(ir.IntType(bits), WIDTH)

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, source, *arguments[:2], vector)
        where = _pointer(context, builder, target, *arguments[2:], vector)
        builder.store(builder.load(place, align=bits // 8), where, align=bits // 8)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), generate


@intrinsic
def accumulate(typing, array, at, lanes):
    """Add 16 numbers to a flat float64 array from `at`."""
    double = _VECTORS[types.float64]

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, array, *arguments[:2], double)
        wide = (
            arguments[2] if lanes.element == types.float64 else builder.fpext(arguments[2], double)
        )
        builder.store(builder.fadd(builder.load(place, align=8), wide), place, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def load_bits(typing, array, at):
    """16 elements of a flat array as they are: of bfloat16 as uint16, for `choose` and `store`."""
    vector = _VECTORS[array.dtype]

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, array, *arguments, vector)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def load_one(typing, array, at):
    """16 times one element of a flat array of floats; an index would be tested for its sign."""
    vector = _VECTORS[array.dtype]

    def generate(context, builder, signature, arguments):
        data = make_array(array)(context, builder, arguments[0]).data
        return _repeat(builder, vector, builder.load(builder.gep(data, [arguments[1]])))

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def spread(typing, value):
    """16 times the same number."""
    vector = _VECTORS[value]

    def generate(context, builder, signature, arguments):
        return _repeat(builder, vector, arguments[0])

    return Lanes(value)(value), generate


@intrinsic
def fill(typing, like, value):
    """16 times the float64 `value`, in the type of the lanes `like`."""
    vector = _VECTORS[like.element]

    def generate(context, builder, signature, arguments):
        given = context.cast(builder, arguments[1], types.float64, like.element)
        return _repeat(builder, vector, given)

    return like(like, types.float64), generate


def _repeat(builder, vector, value):
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, _filled(_I32, 0))


@intrinsic
def multiply_add(typing, a, b, c):
    """a * b + c, rounded once where the processor can."""

    def generate(context, builder, signature, arguments):
        vector = _VECTORS[a.element]
        name = f"llvm.fmuladd.v{WIDTH}f{a.element.bitwidth}"
        function = get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), name
        )
        return builder.call(function, arguments)

    return a(a, b, c), generate


@intrinsic
def choose(typing, where, a, b):
    """Lane by lane, a where `where` holds and b elsewhere."""

    def generate(context, builder, signature, arguments):
        return builder.select(*arguments)

    return a(where, a, b), generate


@intrinsic
def exceeds(typing, a, b):
    """a > b, or a is NaN: what max-pooling asks, so that NaN gets through it."""
    lanes = Lanes(types.boolean)

    def generate(context, builder, signature, arguments):
        greater = builder.fcmp_ordered(">", *arguments)
        return builder.or_(greater, builder.fcmp_unordered("uno", arguments[0], arguments[0]))

    return lanes(a, b), generate


@intrinsic
def equals(typing, a, b):
    """Of uint8 lanes."""
    lanes = Lanes(types.boolean)

    def generate(context, builder, signature, arguments):
        return builder.icmp_unsigned("==", *arguments)

    return lanes(a, b), generate


def _binary(operate):
    @intrinsic
    def function(typing, a, b):
        return a(a, b), lambda context, builder, signature, arguments: operate(builder, *arguments)

    return function


def _comparison(operate):
    @intrinsic
    def function(typing, a, b):
        lanes = Lanes(types.boolean)
        return lanes(a, b), lambda context, builder, signature, arguments: operate(
            builder, *arguments
        )

    return function


def _declare(operation, function) -> None:
    def lower(a, b):
        if isinstance(a, Lanes) and a == b:
            return lambda a, b: function(a, b)

    overload(operation)(lower)


_declare(operator.add, _binary(lambda builder, a, b: builder.fadd(a, b)))
_declare(operator.sub, _binary(lambda builder, a, b: builder.fsub(a, b)))
_declare(operator.mul, _binary(lambda builder, a, b: builder.fmul(a, b)))
_declare(operator.gt, _comparison(lambda builder, a, b: builder.fcmp_ordered(">", a, b)))
_declare(operator.lt, _comparison(lambda builder, a, b: builder.fcmp_ordered("<", a, b)))
