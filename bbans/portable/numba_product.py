"""The product of :class:`bbans.portable.numba_engine.NumbaEngine`: one pass from a layer's inputs to its results.

Maps hold integers of 16 bits here, two channels beside each other for each image: processors multiply such pairs, and
add both products to a sum of 32 bits, in one instruction. The sums of a block of outputs and images stay
in registers while the inputs are walked through where they lie, and are rounded and clipped before they are stored. Of
the vectors here LLVM makes what the machine has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

LANES = 16
"""Images in a vector."""
VECTORS = 2
"""In a tile: with the sums of a block of outputs they leave AVX-512 enough registers for the rest."""
TILE = VECTORS * LANES
"""Images that are evaluated together."""
OUTPUTS = 8
"""In a block."""
PAIR_BYTES = 4 * TILE
"""That two channels take for the images of a tile."""


def _multiply_pairs(builder: Any, features: list[str], first: Any, second: Any) -> Any:
    """Of each pair the sum of its products: from two vectors of ``2 * LANES`` integers of 16 bits to ``LANES`` of 32.

    LLVM knows the instruction for that by its name only; with an addition after it, it takes the one for both.
    """
    wide, narrow = ir.IntType(32), ir.IntType(16)
    lanes = LANES if "+avx512bw" in features else LANES // 2 if "+avx2" in features else 0
    if not lanes:
        products = builder.mul(*(builder.sext(factor, ir.VectorType(wide, 2 * LANES)) for factor in (first, second)))
        return builder.add(*(_some(builder, products, range(which, 2 * LANES, 2)) for which in (0, 1)))
    name = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}[lanes]
    factors = ir.VectorType(narrow, 2 * lanes)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VectorType(wide, lanes), [factors, factors]), name
    )
    parts = [
        builder.call(
            function, [_some(builder, factor, range(2 * start, 2 * (start + lanes))) for factor in (first, second)]
        )
        for start in range(0, LANES, lanes)
    ]
    if len(parts) == 1:
        return parts[0]
    return builder.shuffle_vector(*parts, ir.Constant(ir.VectorType(wide, LANES), list(range(LANES))))


def _some(builder: Any, vector: Any, places: range) -> Any:
    """Some elements of a vector."""
    chosen = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)


@intrinsic
def _block_product(
    typing: Any,
    weight: Any,
    bias: Any,
    block: Any,
    rows: Any,
    shift: Any,
    limits: Any,
    added: Any,
    added_limits: Any,
    out: Any,
    outputs: Any,
    wide: Any,
) -> Any:
    """Evaluate a block of a layer: see :func:`product`. ``rows`` are the addresses of pairs of inputs, int64
    ``(pairs,)``.
    """
    integer, address = ir.IntType(32), ir.IntType(64)
    sums_type, pairs_type = ir.VectorType(integer, LANES), ir.VectorType(ir.IntType(16), 2 * LANES)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def constant(value: int) -> ir.Constant:
            return ir.Constant(address, value)

        def array(place: int) -> Any:
            return context.make_array(signature.args[place])(context, builder, arguments[place])

        def scalar(pointer: Any, place: int) -> Any:
            return builder.load(builder.gep(pointer, [constant(place)]))

        def splat(value: Any) -> Any:
            nothing = ir.Constant(sums_type, ir.Undefined)
            first = builder.insert_element(nothing, value, ir.Constant(integer, 0))
            return builder.shuffle_vector(first, nothing, ir.Constant(sums_type, [0] * LANES))

        def images(start: Any, number: int) -> Any:
            """Where a vector of images lies."""
            return builder.inttoptr(builder.add(start, constant(4 * LANES * number)), sums_type.as_pointer())

        def load(start: Any, number: int) -> Any:
            return builder.load(images(start, number), align=4)

        def clip(y: Any, minimum: Any, maximum: Any) -> Any:
            y = builder.select(builder.icmp_signed("<", y, minimum), minimum, y)
            return builder.select(builder.icmp_signed(">", y, maximum), maximum, y)

        features = context.codegen().magic_tuple()[2].split(",")  # of the processor that is compiled for
        block, rows = arguments[2], array(3).data
        pairs = builder.extract_value(array(0).shape, 1)
        weights = builder.gep(array(0).data, [builder.mul(builder.mul(block, pairs), constant(OUTPUTS))])
        biases = builder.gep(array(1).data, [builder.mul(block, constant(OUTPUTS))])
        sums = [splat(scalar(biases, output)) for output in range(OUTPUTS) for _ in range(VECTORS)]

        before, loop, after = builder.block, builder.append_basic_block("inputs"), builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        place = builder.phi(address)
        place.add_incoming(constant(0), before)
        running = [builder.phi(sums_type) for _ in sums]
        for phi, first in zip(running, sums, strict=True):
            phi.add_incoming(first, before)
        row = builder.load(builder.gep(rows, [place]))
        x = [builder.bitcast(load(row, number), pairs_type) for number in range(VECTORS)]
        factors = builder.gep(weights, [builder.mul(place, constant(OUTPUTS))])
        for output in range(OUTPUTS):
            factor = builder.bitcast(splat(scalar(factors, output)), pairs_type)
            for number in range(VECTORS):
                at = VECTORS * output + number
                sums[at] = builder.add(running[at], _multiply_pairs(builder, features, factor, x[number]))
                running[at].add_incoming(sums[at], loop)
        following = builder.add(place, constant(1))
        place.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)

        builder.position_at_end(after)
        shift, minimum, maximum = splat(arguments[4]), *(splat(scalar(array(5).data, which)) for which in (0, 1))
        least, most = (splat(scalar(array(7).data, which)) for which in (0, 1))
        sixteen, low = splat(ir.Constant(integer, 16)), splat(ir.Constant(integer, 0xFFFF))
        results = [clip(builder.ashr(y, shift), minimum, maximum) for y in sums]
        with builder.if_else(arguments[10]) as (if_wide, if_narrow):
            with if_wide:
                for output in range(OUTPUTS):
                    with builder.if_then(builder.icmp_signed("<", constant(output), arguments[9])):
                        start = builder.add(arguments[8], constant(output * PAIR_BYTES))
                        for number in range(VECTORS):
                            builder.store(results[VECTORS * output + number], images(start, number), align=4)
            with if_narrow:
                for output in range(0, OUTPUTS, 2):
                    with builder.if_then(builder.icmp_signed("<", constant(output), arguments[9])):
                        start = builder.add(arguments[8], constant(output // 2 * PAIR_BYTES))
                        added = builder.add(arguments[6], constant(output // 2 * PAIR_BYTES))
                        for number in range(VECTORS):
                            pair = load(added, number)
                            first, second = (results[VECTORS * (output + which) + number] for which in (0, 1))
                            first = builder.add(first, builder.ashr(builder.shl(pair, sixteen), sixteen))
                            second = builder.add(second, builder.ashr(pair, sixteen))
                            first, second = clip(first, least, most), clip(second, least, most)
                            both = builder.or_(builder.shl(second, sixteen), builder.and_(first, low))
                            builder.store(both, images(start, number), align=4)
        return context.get_dummy_value()

    numbers = (types.int64, types.int32, limits, types.int64, added_limits, types.int64, types.int64, types.boolean)
    block, shift, _, added, _, out, outputs, wide = numbers
    return types.void(weight, bias, block, rows, shift, limits, added, added_limits, out, outputs, wide), emit


@njit(nogil=True, cache=True)
def product(
    weight: NDArray[np.int32],
    bias: NDArray[np.int32],
    shift: np.int32,
    limits: NDArray[np.int32],
    added_limits: NDArray[np.int32],
    operands: NDArray[np.int64],
    shape: tuple[int, int],
    outputs: int,
    wide: bool,
) -> None:
    """Evaluate a layer on tiles and positions, as many of each as ``shape`` says.

    ``weight`` is ``(blocks, pairs of inputs, OUTPUTS)``, of each pair the first input's in the lower 16 bits, and
    ``bias`` ``(blocks, OUTPUTS)``. ``limits`` are the smallest and largest result, ``added_limits`` those after
    something is added. ``operands`` has a row for the result, one for what is added, and one for each part of the
    inputs: its address (0 if nothing is added), how many bytes it is from a tile to the next and from a position to the
    next, and how many pairs of channels it has, one after the other. The result is pairs too, or, if ``wide``, one
    int32 for each output; to these nothing is added.
    """
    nothing = np.zeros(OUTPUTS * PAIR_BYTES // 8, np.int32)
    rows = np.empty(weight.shape[1], np.int64)
    step = OUTPUTS * PAIR_BYTES if wide else OUTPUTS * PAIR_BYTES // 2
    for tile in range(shape[0]):
        for position in range(shape[1]):
            place = 0
            for part in range(2, len(operands)):
                row = operands[part, 0] + tile * operands[part, 1] + position * operands[part, 2]
                for _ in range(operands[part, 3]):
                    rows[place] = row
                    row += PAIR_BYTES
                    place += 1
            out = operands[0, 0] + tile * operands[0, 1] + position * operands[0, 2]
            other = operands[1, 0] + tile * operands[1, 1] + position * operands[1, 2]
            for block in range(len(weight)):
                added = other + block * step if operands[1, 0] else nothing.ctypes.data
                _block_product(
                    weight,
                    bias,
                    block,
                    rows,
                    shift,
                    limits,
                    added,
                    added_limits,
                    out + block * step,
                    outputs - block * OUTPUTS,
                    wide,
                )


@njit(nogil=True, cache=True)
def pack(values: NDArray[np.float32], stored: NDArray[np.int32]) -> None:
    """From a map ``(rows, columns, channels, images)`` to pairs ``(tiles, rows, columns, groups, TILE)``."""
    rows, columns, channels, images = values.shape
    for tile in range(len(stored)):
        first = tile * TILE
        count = min(TILE, images - first)
        for row in range(rows):
            for column in range(columns):
                for channel in range(channels):
                    for image in range(count):
                        value = np.int32(values[row, column, channel, first + image])
                        if channel % 2 == 0:
                            stored[tile, row, column, channel // 2, image] = value & 0xFFFF
                        else:
                            stored[tile, row, column, channel // 2, image] |= value << 16


@njit(nogil=True, cache=True)
def write(values: NDArray[np.float32], stored: NDArray[np.int32], channel: int) -> None:
    """Replace a channel of pairs ``(tiles, positions, groups, TILE)`` by ``(positions, images)``."""
    positions, images = values.shape
    for tile in range(len(stored)):
        first = tile * TILE
        for position in range(positions):
            for image in range(min(TILE, images - first)):
                value = np.int32(values[position, first + image])
                other = stored[tile, position, channel // 2, image]
                if channel % 2 == 0:
                    stored[tile, position, channel // 2, image] = (other & ~0xFFFF) | (value & 0xFFFF)
                else:
                    stored[tile, position, channel // 2, image] = (other & 0xFFFF) | (value << 16)


@njit(nogil=True, cache=True)
def unpack(stored: NDArray[np.int32], values: NDArray[np.float32], wide: bool) -> None:
    """From pairs, or ``wide`` results, ``(tiles, positions, groups, TILE)`` to ``(positions, channels, images)``."""
    positions, channels, images = values.shape
    for tile in range(len(stored)):
        first = tile * TILE
        for position in range(positions):
            for channel in range(channels):
                for image in range(min(TILE, images - first)):
                    if wide:
                        values[position, channel, first + image] = stored[tile, position, channel, image]
                    elif channel % 2 == 0:
                        values[position, channel, first + image] = np.int16(stored[tile, position, channel // 2, image])
                    else:
                        values[position, channel, first + image] = stored[tile, position, channel // 2, image] >> 16
