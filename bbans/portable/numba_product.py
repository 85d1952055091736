"""The product of :class:`bbans.portable.numba_engine.NumbaEngine`: one pass from a layer's inputs to its results.

Maps hold integers of 16 bits here, two channels beside each other for each image: processors multiply such pairs, and
add both products to a sum of 32 bits, in one instruction. The sums of a block of outputs and images stay
in registers while the inputs are walked through where they lie, and are rounded and clipped before they are stored. Of
the vectors here LLVM makes what the machine has.
"""

from __future__ import annotations

from enum import IntEnum
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
SHORT_MAXIMUM = (1 << 15) - 1
"""Of inputs and weights."""
SUM_MAXIMUM = (1 << 31) - 1
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
def block_product(
    typing: Any,
    weight: Any,
    bias: Any,
    limits: Any,
    added_limits: Any,
    rows: Any,
    pairs: Any,
    shift: Any,
    added: Any,
    out: Any,
    outputs: Any,
    wide: Any,
) -> Any:
    """Evaluate a block of a layer at a position of a tile: numbers and addresses as in :class:`Step`. ``rows`` is where
    the addresses of pairs of inputs are.
    """
    integer, address = ir.IntType(32), ir.IntType(64)
    sums_type, pairs_type = ir.VectorType(integer, LANES), ir.VectorType(ir.IntType(16), 2 * LANES)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def constant(value: int) -> ir.Constant:
            return ir.Constant(address, value)

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
        weights, biases, limits, added_limits = (
            builder.inttoptr(arguments[place], integer.as_pointer()) for place in (0, 1, 2, 3)
        )
        rows = builder.inttoptr(arguments[4], address.as_pointer())
        pairs, shift, added, out, outputs, wide = arguments[5:]
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
        shift = splat(builder.trunc(shift, integer))
        minimum, maximum = (splat(scalar(limits, which)) for which in (0, 1))
        least, most = (splat(scalar(added_limits, which)) for which in (0, 1))
        sixteen, low = splat(ir.Constant(integer, 16)), splat(ir.Constant(integer, 0xFFFF))
        results = [clip(builder.ashr(y, shift), minimum, maximum) for y in sums]
        with builder.if_else(builder.icmp_signed("!=", wide, constant(0))) as (if_wide, if_narrow):
            with if_wide:
                for output in range(OUTPUTS):
                    with builder.if_then(builder.icmp_signed("<", constant(output), outputs)):
                        start = builder.add(out, constant(output * PAIR_BYTES))
                        for number in range(VECTORS):
                            builder.store(results[VECTORS * output + number], images(start, number), align=4)
            with if_narrow:
                for output in range(0, OUTPUTS, 2):
                    with builder.if_then(builder.icmp_signed("<", constant(output), outputs)):
                        start = builder.add(out, constant(output // 2 * PAIR_BYTES))
                        other = builder.add(added, constant(output // 2 * PAIR_BYTES))
                        for number in range(VECTORS):
                            pair = load(other, number)
                            first, second = (results[VECTORS * (output + which) + number] for which in (0, 1))
                            first = builder.add(first, builder.ashr(builder.shl(pair, sixteen), sixteen))
                            second = builder.add(second, builder.ashr(pair, sixteen))
                            first, second = clip(first, least, most), clip(second, least, most)
                            both = builder.or_(builder.shl(second, sixteen), builder.and_(first, low))
                            builder.store(both, images(start, number), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 11), emit


class Step(IntEnum):
    """The fields of a layer, as :func:`evaluate` takes it: addresses and numbers."""

    WEIGHT = 0
    """Address of int32 ``(blocks, pairs of inputs, OUTPUTS)``, of each pair the first input's in the lower 16 bits."""
    BIAS = 1
    """Of int32 ``(blocks, OUTPUTS)``."""
    LIMITS = 2
    """Of the smallest and the largest result, int32..."""
    ADDED_LIMITS = 3
    """...and of these after something is added."""
    SHIFT = 4
    PAIRS = 5
    OUTPUTS = 6
    WIDE = 7
    """Whether the result is one int32 for each output, to which nothing is added, and not pairs."""
    FIRST_OPERAND = 8
    """Where the operands of this layer begin..."""
    OPERANDS = 9
    """...and how many they are: the result, what is added, and the parts of the inputs."""


class Operand(IntEnum):
    """The fields of an operand of a layer."""

    ADDRESS = 0
    """0 where nothing is added."""
    TILE = 1
    """Bytes from a tile to the next..."""
    ROW = 2
    """...and so for rows..."""
    COLUMN = 3
    """...and columns of the image..."""
    POSITION = 4
    """...and the positions that are looked at together, whatever their rows and columns are."""
    GROUPS = 5
    """At a position, one after the other."""


ZERO, ONE = np.int64(0), np.int64(1)
"""Numbers that numba doesn't compile a version of everything for, as it would for literals."""
Table = NDArray[np.int64]
Numbers = tuple[int, int, int, int, int]
"""Of a line: row and column of its first position, the rows and columns to the next, and how many they are."""


@njit(nogil=True, cache=True)
def multiply(step: Table, inputs: Table, other: int, out: int, nothing: Table) -> None:
    """Evaluate one layer at a position of a tile, block after block of outputs. ``inputs`` are addresses of pairs, and
    ``other`` is that of what is added, or 0; ``nothing`` are zeros.
    """
    wide, pairs = step[Step.WIDE], step[Step.PAIRS]
    block_bytes = OUTPUTS * PAIR_BYTES if wide else OUTPUTS * PAIR_BYTES // 2
    for block in range(-(-step[Step.OUTPUTS] // OUTPUTS)):
        block_product(
            step[Step.WEIGHT] + 4 * block * pairs * OUTPUTS,
            step[Step.BIAS] + 4 * block * OUTPUTS,
            step[Step.LIMITS],
            step[Step.ADDED_LIMITS],
            inputs.ctypes.data,
            pairs,
            step[Step.SHIFT],
            other + block * block_bytes if other else nothing.ctypes.data,
            out + block * block_bytes,
            step[Step.OUTPUTS] - block * OUTPUTS,
            wide,
        )


@njit(nogil=True, cache=True)
def _evaluate_step(step: Table, operands: Table, line: Numbers, tile: int, inputs: Table, nothing: Table) -> None:
    """Evaluate one layer at the positions of a line of a tile; ``inputs`` is scratch, ``nothing`` are zeros."""
    row, column, down, right, count = line
    first = step[Step.FIRST_OPERAND]
    for position in range(count):
        place = 0
        out = other = 0
        for operand in range(first, first + step[Step.OPERANDS]):
            address = (
                operands[operand, Operand.ADDRESS]
                + tile * operands[operand, Operand.TILE]
                + (row + position * down) * operands[operand, Operand.ROW]
                + (column + position * right) * operands[operand, Operand.COLUMN]
                + position * operands[operand, Operand.POSITION]
            )
            if operand == first:
                out = address
            elif operand == first + 1:
                other = address if operands[operand, Operand.ADDRESS] else 0
            else:
                for _ in range(operands[operand, Operand.GROUPS]):
                    inputs[place] = address
                    address += PAIR_BYTES
                    place += 1
        multiply(step, inputs, other, out, nothing)


@njit(nogil=True, cache=True)
def evaluate(steps: Table, operands: Table, line: Numbers, tiles: int) -> None:
    """Evaluate layers, one after the other, at the positions of a line of so many tiles.

    The rows of ``steps`` have the fields of :class:`Step`, those of ``operands`` the fields of :class:`Operand`.
    """
    nothing, inputs = np.zeros(OUTPUTS * PAIR_BYTES // 8, np.int64), np.empty(steps[:, Step.PAIRS].max(), np.int64)
    for tile in range(tiles):
        for index in range(len(steps)):
            _evaluate_step(steps[index], operands, line, tile, inputs, nothing)


@njit(nogil=True, cache=True)
def evaluate_maps(steps: Table, operands: Table, sizes: Table, tiles: int) -> None:
    """Evaluate layers, one after the other, each at all positions up to its height and width."""
    nothing, inputs = np.zeros(OUTPUTS * PAIR_BYTES // 8, np.int64), np.empty(steps[:, Step.PAIRS].max(), np.int64)
    for tile in range(tiles):
        for index in range(len(steps)):
            height, width = sizes[index]
            for row in range(height):
                line = (row, ZERO, ZERO, ONE, width)
                _evaluate_step(steps[index], operands, line, tile, inputs, nothing)


def pairs_of(weight: NDArray[np.int16]) -> NDArray[np.int32]:
    """Weights ``(outputs, inputs)`` as :attr:`Step.WEIGHT` wants them."""
    outputs, inputs = weight.shape
    blocks, pairs = -(-outputs // OUTPUTS), -(-inputs // 2)
    filled = np.zeros((blocks * OUTPUTS, 2 * pairs), "<i2")
    filled[:outputs, :inputs] = weight
    both = filled.view("<i4").astype(np.int32).reshape(blocks, OUTPUTS, pairs)
    return np.ascontiguousarray(both.swapaxes(1, 2))


@njit(nogil=True, cache=True)
def pack(values: NDArray[np.float32], stored: NDArray[np.int32]) -> None:
    """From a map ``(rows, columns, channels, images)`` to pairs ``(tiles, rows, columns, groups, TILE)``."""
    rows, columns, channels, images = values.shape
    for tile in range(len(stored)):
        first = tile * TILE
        count = min(TILE, images - first)
        for row in range(rows):
            for column in range(columns):
                for channel in range(0, channels, 2):
                    pairs = stored[tile, row, column, channel // 2]
                    for image in range(count):
                        pairs[image] = np.int32(values[row, column, channel, first + image]) & 0xFFFF
                    if channel + 1 < channels:
                        for image in range(count):
                            pairs[image] |= np.int32(values[row, column, channel + 1, first + image]) << 16


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
def unpack(stored: NDArray[np.int32], values: NDArray[Any], wide: bool) -> None:
    """From pairs, or ``wide`` results, ``(tiles, positions, groups, TILE)`` to ``(positions, channels, images)`` in any
    type; all go through float32, as with other engines.
    """
    positions, channels, images = values.shape
    for tile in range(len(stored)):
        first = tile * TILE
        count = min(TILE, images - first)
        for position in range(positions):
            for channel in range(channels):
                group = stored[tile, position, channel if wide else channel // 2]
                found = values[position, channel, first : first + count]
                if wide:
                    for image in range(count):
                        found[image] = np.float32(group[image])
                elif channel % 2 == 0:
                    for image in range(count):
                        found[image] = np.int16(group[image])
                else:
                    for image in range(count):
                        found[image] = group[image] >> 16
