"""Sixteen numbers at a time in compiled kernels, whatever the compiler makes of loops.

numba vectorises a loop where LLVM can prove that it may, keeps short inner loops (the 16 or 32
channels of one pixel) scalar, and counts with 64 bits where 8 would do. These functions name the
vectors instead: `load` and `store` move 16 neighbouring elements of an array to and from a `Lanes`
value, on which +, -, *, <, > and `choose` work lane by lane; lines are 64 bytes. LLVM lowers them
to what the processor has, from AVX-512 to none at all; `look_up` alone needs AVX512-VBMI.

bfloat16, which numpy lacks, is the upper half of a float32: an array of it is passed as uint16,
`load` widens it, `store` rounds to the nearest, ties to even, as torch does. Nothing is checked:
offsets are in elements, and the caller sees to it that all lanes are inside. Change the kernels'
files with this one: numba's cache looks at those alone.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel import models
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload, register_model
from numba.np.arrayobj import make_array

WIDTH = 16
LINE = 64
_I32 = ir.VectorType(ir.IntType(32), WIDTH)
# What numba compiles for: part of its cache's keys, too.
HAS_LOOK_UP = "+avx512vbmi" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


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


def _mask(order):
    kind = ir.IntType(32)
    return ir.Constant(ir.VectorType(kind, len(order)), [ir.Constant(kind, i) for i in order])


def _repeat(builder, vector, value):
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, _mask([0] * vector.count))


@intrinsic
def multiply_add(typing, a, b, c):
    """a * b + c, rounded once where the processor can."""

    def generate(context, builder, signature, arguments):
        vector = a.vector
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


@intrinsic
def look_up(typing, line, first, second, third, fourth):
    """The entries at 64 bytes of a table of 256, given as its four quarters. See HAS_LOOK_UP."""
    vector = line.vector

    def generate(context, builder, signature, arguments):
        byte, a, b, c, d = arguments
        select = get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [vector] * 3),
            "llvm.x86.avx512.vpermi2var.qi.512",
        )
        low, high = builder.call(select, [a, byte, b]), builder.call(select, [c, byte, d])
        return builder.select(builder.icmp_signed("<", byte, _filled(vector, 0)), high, low)

    return line(line, line, line, line, line), generate


def _extreme(predicate):
    @intrinsic
    def function(typing, a, b):
        def generate(context, builder, signature, arguments):
            return builder.select(builder.icmp_unsigned(predicate, *arguments), *arguments)

        return a(a, b), generate

    return function


least, most = _extreme("<"), _extreme(">")  # of two lines, byte by byte


def _reduction(name, element, count):
    lanes = Lanes(element, count)

    @intrinsic
    def function(typing, given):
        kind = lanes.vector

        def generate(context, builder, signature, arguments):
            intrinsic_name = f"llvm.vector.reduce.{name}.v{count}i{kind.element.width}"
            reduce = get_or_insert_function(
                builder.module, ir.FunctionType(kind.element, [kind]), intrinsic_name
            )
            return builder.call(reduce, arguments)

        return element(lanes), generate

    return function


sum_of = _reduction("add", types.int32, WIDTH)  # of int32 lanes
lowest, highest = _reduction("umin", types.uint8, LINE), _reduction("umax", types.uint8, LINE)


@intrinsic
def whole(typing, lanes):
    """Bytes as int32; float32 as int32, truncated (they must fit)."""
    wide = Lanes(types.int32, lanes.vector.count)

    def generate(context, builder, signature, arguments):
        convert = builder.zext if lanes.element == types.uint8 else builder.fptosi
        return convert(arguments[0], wide.vector)

    return wide(lanes), generate


@intrinsic
def mirrored(typing, lanes):
    """The last lane first."""
    count = lanes.vector.count
    order = _mask(range(count)[::-1])

    def generate(context, builder, signature, arguments):
        return builder.shuffle_vector(arguments[0], arguments[0], order)

    return lanes(lanes), generate


@intrinsic
def store_interleaved(typing, array, at, a, b, c):
    """Write 48 numbers to a flat array from `at`: the first of a, b and c, then the second..."""
    count = a.vector.count

    def generate(context, builder, signature, arguments):
        place = _pointer(
            context, builder, array, *arguments[:2], ir.VectorType(a.vector.element, 3 * count)
        )
        x, y, z = arguments[2:]
        two = builder.shuffle_vector(x, y, _mask(range(2 * count)))
        last = builder.shuffle_vector(z, z, _mask(range(2 * count)))
        order = [k * count + i if k < 2 else 2 * count + i for i in range(count) for k in range(3)]
        builder.store(builder.shuffle_vector(two, last, _mask(order)), place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, a, b, c), generate


def _shift(operate):
    @intrinsic
    def function(typing, lanes, bits):
        def generate(context, builder, signature, arguments):
            narrow = builder.trunc(arguments[1], lanes.vector.element)
            return operate(builder, arguments[0], _repeat(builder, lanes.vector, narrow))

        return lanes(lanes, types.int64), generate

    return function


# Of int32 lanes, by a number of bits; to the right, zeros follow.
shift_left, shift_right = _shift(ir.IRBuilder.shl), _shift(ir.IRBuilder.lshr)


@intrinsic
def low_bytes(typing, lanes):
    """The low byte of each int32."""
    bytes_ = Lanes(types.uint8, lanes.vector.count)

    def generate(context, builder, signature, arguments):
        return builder.trunc(arguments[0], bytes_.vector)

    return bytes_(lanes), generate


@intrinsic
def floats(typing, lanes):
    """int32 or bytes as float32."""
    real = Lanes(types.float32)

    def generate(context, builder, signature, arguments):
        convert = builder.uitofp if lanes.element == types.uint8 else builder.sitofp
        return convert(arguments[0], real.vector)

    return real(lanes), generate


@intrinsic
def clipped(typing, lanes):
    """float32 as bytes: truncated, 0 below 0 and 255 above."""
    bytes_ = Lanes(types.uint8)

    def generate(context, builder, signature, arguments):
        zero, top = _filled(lanes.vector, 0.0), _filled(lanes.vector, 255.0)
        above = builder.fcmp_ordered(">", arguments[0], zero)
        positive = builder.select(above, arguments[0], zero)
        inside = builder.select(builder.fcmp_ordered("<", positive, top), positive, top)
        whole_numbers = builder.fptosi(inside, Lanes(types.int32).vector)
        return builder.trunc(whole_numbers, bytes_.vector)

    return bytes_(lanes), generate


def _binary(of_floats, of_integers):
    @intrinsic
    def function(typing, a, b):
        operate = of_floats if isinstance(a.element, types.Float) else of_integers
        return a(a, b), lambda context, builder, signature, arguments: operate(builder, *arguments)

    return function


def _comparison(predicate):
    @intrinsic
    def function(typing, a, b):
        lanes = Lanes(types.boolean)
        return lanes(a, b), lambda context, builder, signature, arguments: builder.fcmp_ordered(
            predicate, *arguments
        )

    return function


def _declare(operation, function):
    def lower(a, b):
        if isinstance(a, Lanes) and a == b:
            return lambda a, b: function(a, b)

    overload(operation)(lower)


_declare(operator.add, _binary(ir.IRBuilder.fadd, ir.IRBuilder.add))
_declare(operator.sub, _binary(ir.IRBuilder.fsub, ir.IRBuilder.sub))
_declare(operator.mul, _binary(ir.IRBuilder.fmul, ir.IRBuilder.mul))
_declare(operator.gt, _comparison(">"))
_declare(operator.lt, _comparison("<"))
