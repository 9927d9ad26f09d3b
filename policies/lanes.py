"""Sixteen numbers at a time in compiled kernels, whatever the compiler makes of loops.

numba vectorises a loop where LLVM can prove that it may, keeps short inner loops (the 16 or 32
channels of one pixel) scalar, and counts with 64 bits where 8 would do. These functions name the
vectors instead: `load` and `store` move 16 neighbouring elements of an array to and from a `Lanes`
value; lines are 64 bytes. What is computed with them stands in `lane_arithmetic`. LLVM lowers all
of it to what the processor has, from AVX-512 to none at all; `look_up` alone needs AVX512-VBMI.

bfloat16, which numpy lacks, is the upper half of a float32: an array of it is passed as uint16,
`load` widens it, `store` rounds to the nearest, ties to even, as torch does. Nothing is checked:
offsets are in elements, and the caller sees to it that all lanes are inside. Change the kernels'
files with this one: numba's cache looks at those alone.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model
from numba.np.arrayobj import make_array

WIDTH = 16
LINE = 64
_I32 = ir.VectorType(ir.IntType(32), WIDTH)


class Lanes(types.Type):
    """The numba type of 16 numbers of type `element`, or of a line of 64 bytes."""

    def __init__(self, element: types.Type, count: int = WIDTH):
        self.element, self.vector = element, ir.VectorType(_ELEMENTS[element], count)
        super().__init__(f"Lanes({element}, {count})")


_ELEMENTS = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: ir.IntType(32),
    types.uint16: ir.IntType(16),
    types.uint8: ir.IntType(8),
    types.boolean: ir.IntType(1),
}
_VECTORS = {element: ir.VectorType(kind, WIDTH) for element, kind in _ELEMENTS.items()}


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        super().__init__(manager, lanes, lanes.vector)


def filled(vector: ir.VectorType, value) -> ir.Constant:
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * vector.count)


def _pointer(context, builder, array_type, array, at, vector):
    data = make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())


def _widen(builder, bits):
    wide = builder.shl(builder.zext(bits, _I32), filled(_I32, 16))
    return builder.bitcast(wide, _VECTORS[types.float32])


def _narrow(builder, lanes):
    bits = builder.bitcast(lanes, _I32)
    odd = builder.and_(builder.lshr(bits, filled(_I32, 16)), filled(_I32, 1))
    rounded = builder.add(bits, builder.add(odd, filled(_I32, 0x7FFF)))
    nan = builder.fcmp_unordered("uno", lanes, lanes)
    upper = builder.select(nan, filled(_I32, 0x7FC00000), rounded)
    return builder.trunc(builder.lshr(upper, filled(_I32, 16)), _VECTORS[types.uint16])


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
def load_line(typing, array, at):
    """64 bytes of a flat array from `at`."""
    line = Lanes(types.uint8, LINE)

    def generate(context, builder, signature, arguments):
        return builder.load(_pointer(context, builder, array, *arguments, line.vector), align=1)

    return line(array, types.intp), generate


@intrinsic
def load_pixels(typing, array, at, step):
    """Four times 4 bytes of a flat array, from `at` in steps."""
    pixels = Lanes(types.uint8, WIDTH)
    four, one = ir.VectorType(ir.IntType(32), 4), ir.IntType(32)

    def generate(context, builder, signature, arguments):
        place, step = arguments[1:]
        words = ir.Constant(four, ir.Undefined)
        for k in range(4):
            word = _pointer(context, builder, array, arguments[0], place, one)
            words = builder.insert_element(words, builder.load(word, align=1), one(k))
            place = builder.add(place, step)
        return builder.bitcast(words, pixels.vector)

    return pixels(array, types.intp, types.intp), generate


@intrinsic
def store_pixels(typing, array, at, step, pixels):
    """Write 16 bytes to a flat array, 4 at a time, from `at` in steps."""
    four, one = ir.VectorType(ir.IntType(32), 4), ir.IntType(32)

    def generate(context, builder, signature, arguments):
        place, step = arguments[1:3]
        words = builder.bitcast(arguments[3], four)
        for k in range(4):
            word = _pointer(context, builder, array, arguments[0], place, one)
            builder.store(builder.extract_element(words, one(k)), word, align=1)
            place = builder.add(place, step)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, pixels), generate


@intrinsic
def store(typing, array, at, lanes):
    """Write all lanes to a flat array from `at`; floats to uint16 (bfloat16) rounded."""
    narrower = array.dtype == types.uint16 and lanes.element == types.float32
    vector = ir.VectorType(_ELEMENTS[array.dtype], lanes.vector.count)

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, array, *arguments[:2], vector)
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
        return repeat(builder, vector, builder.load(builder.gep(data, [arguments[1]])))

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def spread(typing, value):
    """16 times the same number."""
    vector = _VECTORS[value]

    def generate(context, builder, signature, arguments):
        return repeat(builder, vector, arguments[0])

    return Lanes(value)(value), generate


@intrinsic
def fill(typing, like, value):
    """16 times the float64 `value`, in the type of the lanes `like`."""
    vector = _VECTORS[like.element]

    def generate(context, builder, signature, arguments):
        given = context.cast(builder, arguments[1], types.float64, like.element)
        return repeat(builder, vector, given)

    return like(like, types.float64), generate


def mask(order):
    kind = ir.IntType(32)
    return ir.Constant(ir.VectorType(kind, len(order)), [ir.Constant(kind, i) for i in order])


def repeat(builder, vector, value):
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, mask([0] * vector.count))


@intrinsic
def store_interleaved(typing, array, at, a, b, c):
    """Write 48 numbers to a flat array from `at`: the first of a, b and c, then the second..."""
    count = a.vector.count

    def generate(context, builder, signature, arguments):
        place = _pointer(
            context, builder, array, *arguments[:2], ir.VectorType(a.vector.element, 3 * count)
        )
        x, y, z = arguments[2:]
        two = builder.shuffle_vector(x, y, mask(range(2 * count)))
        last = builder.shuffle_vector(z, z, mask(range(2 * count)))
        order = [k * count + i if k < 2 else 2 * count + i for i in range(count) for k in range(3)]
        builder.store(builder.shuffle_vector(two, last, mask(order)), place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, a, b, c), generate
