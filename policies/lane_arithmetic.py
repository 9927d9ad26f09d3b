"""What compiled kernels compute with `lanes.Lanes`: arithmetic, choices, look-ups, conversions.

Importing this module gives `Lanes` their operators +, -, *, < and >. Change the kernels' files with
this one: numba's cache looks at those alone.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

from .lanes import LINE, WIDTH, Lanes, filled, mask, repeat

# What numba compiles for: part of its cache's keys, too.
HAS_LOOK_UP = "+avx512vbmi" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


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
        return builder.select(builder.icmp_signed("<", byte, filled(vector, 0)), high, low)

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
    order = mask(range(count)[::-1])

    def generate(context, builder, signature, arguments):
        return builder.shuffle_vector(arguments[0], arguments[0], order)

    return lanes(lanes), generate


def _shift(operate):
    @intrinsic
    def function(typing, lanes, bits):
        def generate(context, builder, signature, arguments):
            narrow = builder.trunc(arguments[1], lanes.vector.element)
            return operate(builder, arguments[0], repeat(builder, lanes.vector, narrow))

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
        zero, top = filled(lanes.vector, 0.0), filled(lanes.vector, 255.0)
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
