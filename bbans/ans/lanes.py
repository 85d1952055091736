"""Growing and folding lanes, so that many heads cost no more than one.

Written out, each head costs about 37 bits that carry nothing. So a new lane's head is *popped* from the
stack, as a symbol whose distribution is close to that of a real head (log-uniform on ``[2**31, 2**63)``), and
a lane that ends is *pushed* back as one. Each is the exact inverse of the other. What is left is the overhead
of a single head for a whole chunk.
"""

from __future__ import annotations

import numpy as np

from bbans.ans.stack import Integers, Stack

MANTISSA_BITS = 31
EXPONENT_BITS = 5


def grow(stack: Stack, lanes: int) -> None:
    """Raise the number of lanes to ``lanes``, each new head popped from the stack.

    A new lane takes 51.5 bits on average, which :func:`fold` gives back. Raises
    :class:`bbans.errors.StackUnderflow` if the stack doesn't hold them.
    """
    for count in _doublings(stack.lanes, lanes):
        stack.add_lanes(_pop_heads(stack, count))


def fold(stack: Stack, lanes: int) -> None:
    """Lower the number of lanes to ``lanes``, each dropped head pushed onto the stack: the inverse of :func:`grow`."""
    for count in reversed(_doublings(lanes, stack.lanes)):
        _push_heads(stack, stack.remove_lanes(count))


def _doublings(few: int, many: int) -> list[int]:
    """How many lanes each step adds on the way from ``few`` to ``many``: at most as many as there are."""
    steps = []
    while few < many:
        steps.append(min(few, many - few))
        few += steps[-1]
    return steps


def _push_heads(stack: Stack, heads: Integers) -> None:
    """Push each head as its lowest 31 bits, the bits above them but the leading one, and their number."""
    upper = heads >> np.uint64(MANTISSA_BITS)
    # frexp is exact here: upper is below 2**32.
    exponent = (np.frexp(upper.astype(np.float64))[1] - 1).astype(np.uint64)
    one = np.ones_like(heads)
    spare = np.uint64(MANTISSA_BITS) - exponent
    stack.push(heads & np.uint64((1 << MANTISSA_BITS) - 1), one, MANTISSA_BITS)
    stack.push((upper - (one << exponent)) << spare, one << spare, MANTISSA_BITS)
    stack.push(exponent, one, EXPONENT_BITS)


def _pop_heads(stack: Stack, count: int) -> Integers:
    one = np.ones(count, np.uint64)

    def pop_uniform(width: Integers, precision: int) -> Integers:
        value = stack.peek(count, precision)
        symbol = value // width
        stack.pop(symbol * width, width, precision)
        return symbol

    exponent = pop_uniform(one, EXPONENT_BITS)
    middle = pop_uniform(one << (np.uint64(MANTISSA_BITS) - exponent), MANTISSA_BITS)
    lower = pop_uniform(one, MANTISSA_BITS)
    return ((one << exponent) + middle) << np.uint64(MANTISSA_BITS) | lower
