"""Popping on a device: the heads of a stack, and as much of its tail as may be needed, as torch tensors.

Heads are below 2**63, so int64 holds them. Nothing here waits for the device or depends on values, so all of it can be
captured in a CUDA graph.
"""

from __future__ import annotations

import numpy as np
import torch

from bbans.ans.numpy_core import NumpyStack
from bbans.ans.stack import HEAD_MINIMUM, Stack

WORD_BITS = 32
LOW_WORD = (1 << WORD_BITS) - 1


class TensorStack:
    """Takes the place of a stack for a number of pops: loaded from it before, and stored to it afterwards.

    Its tensors stay where they are. Start and frequency are int64 here.
    """

    def __init__(self, lanes: int, pops: int, device: torch.device) -> None:
        """For stacks of so many lanes, and so many symbols: each takes at most one word."""
        self.heads = torch.zeros(lanes, dtype=torch.int64, device=device)
        self.words = torch.zeros(max(1, pops), dtype=torch.int32, device=device)
        """Of the tail; the upper half of uint32 is negative."""
        self.taken = torch.zeros(1, dtype=torch.int64, device=device)
        """How many of them."""

    @property
    def lanes(self) -> int:
        return len(self.heads)

    def load(self, stack: NumpyStack) -> None:
        tail = stack.buffer[stack.top : stack.top + len(self.words)].view(np.int32)
        self.heads.copy_(torch.from_numpy(stack.heads.view(np.int64)))
        self.words[: len(tail)] = torch.from_numpy(tail)
        self.taken.zero_()

    def store(self, stack: NumpyStack) -> None:
        """Raises :class:`bbans.errors.StackUnderflow` if more was popped than the stack had."""
        stack.popped_to(stack.top + int(self.taken))
        stack.heads[:] = self.heads.cpu().numpy().view(np.uint64)

    def peek(self, count: int, precision: int) -> torch.Tensor:
        """As :meth:`bbans.ans.stack.Stack.peek`."""
        return self.heads[:count] & ((1 << precision) - 1)

    def pop(self, start: torch.Tensor, frequency: torch.Tensor, precision: int) -> None:
        """As :meth:`bbans.ans.stack.Stack.pop`, but that a missing word is only found by :meth:`store`."""
        heads = self.heads[: len(start)]
        popped = (heads >> precision) * frequency + (heads & ((1 << precision) - 1)) - start
        empty = popped < HEAD_MINIMUM
        places = empty.cumsum(0)
        words = torch.take(self.words, (self.taken + places - 1).clamp_(0, len(self.words) - 1)).to(torch.int64)
        heads.copy_(torch.where(empty, (popped << WORD_BITS) | (words & LOW_WORD), popped))
        self.taken += places[-1]


class HostLanes:
    """Any stack, as :class:`TensorStack` is used: each peek and pop waits for the device."""

    def __init__(self, stack: Stack, device: torch.device) -> None:
        self.stack, self.device = stack, device

    @property
    def lanes(self) -> int:
        return self.stack.lanes

    def peek(self, count: int, precision: int) -> torch.Tensor:
        return torch.from_numpy(self.stack.peek(count, precision).astype(np.int64)).to(self.device)

    def pop(self, start: torch.Tensor, frequency: torch.Tensor, precision: int) -> None:
        found = torch.stack([start, frequency]).cpu().numpy().astype(np.uint64)
        self.stack.pop(found[0], found[1], precision)
