"""The entropy coder: a stack of integer intervals (vectorized rANS).

It knows intervals and nothing else; what the intervals mean is the business of :mod:`bbans.intervals`. A
third party plugs in a core of its own through the entry point group ``bbans.ans`` and proves it with
:func:`bbans.ans.conformance.check_core`.

>>> import numpy as np
>>> from bbans.ans import core_named
>>> stack = core_named("numpy").from_words(np.array([0, 1 << 31, 7, 8], np.uint32), lanes=1)
>>> start, frequency = np.array([10], np.uint64), np.array([3], np.uint64)
>>> stack.push(start, frequency, precision=8)
>>> int(stack.peek(1, precision=8)[0]) in range(10, 13)
True
>>> stack.pop(start, frequency, precision=8)
>>> stack.to_words().tolist()
[0, 2147483648, 7, 8]
"""

from bbans.ans.lanes import fold, grow
from bbans.ans.registry import core_named, core_names
from bbans.ans.stack import HEAD_MINIMUM, Core, Stack

__all__ = ["HEAD_MINIMUM", "Core", "Stack", "core_named", "core_names", "fold", "grow"]
