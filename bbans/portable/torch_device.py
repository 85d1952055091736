"""Where torch computes: a CPU, or a CUDA device with a stream for each thread and graphs of what is done often.

What is recorded is a function of no arguments on tensors that stay where they are. On CUDA its kernels are captured
once, and then launched together, without Python; on a CPU it is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch

from bbans.errors import CoreError

DEVICE_NAMES = ("auto", "cpu", "cuda")
CPU_ELEMENTS, CUDA_ELEMENTS = 1 << 19, 1 << 24
"""Of a matrix on each: enough to be busy, few enough for its caches, or its memory."""
CPU_MEMORY = 1 << 30
"""What buffers that wait to be used again may take, in bytes..."""
CUDA_SHARE = 4
"""...or one part in so many of the memory of a CUDA device."""

Function = Callable[[], object]


class Gate:
    """Lets in any number of threads, or one alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._closed = True
            self._condition.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._condition:
                self._closed = False
                self._condition.notify_all()


GATE = Gate()
"""While torch captures a graph, no other thread of the process may use the device: streams are not told apart, since
torch hands out the same few again and again."""


class Recorder(Protocol):
    """Makes functions on fixed tensors ready to be called many times, all by one thread at a time."""

    def working(self) -> AbstractContextManager[None]:
        """In which to record and to call what was recorded; what the caller computed before is done by then."""

    def record(self, function: Function) -> Function:
        """What does the same to the tensors that ``function`` uses, but does not look at anything else again. To be
        called within :meth:`Device.working_alone`.

        ``function`` may be called while it is recorded, and must neither wait for the device nor depend on values.
        """


class Direct:
    """Calls functions as they are."""

    @contextmanager
    def working(self) -> Iterator[None]:
        yield

    def record(self, function: Function) -> Function:
        return function


class Graphs:
    """Captures CUDA graphs on a stream of its own, and launches them there.

    They share memory for what they compute on the way, and matrix products one workspace, so no two may run at once:
    always on the same stream, they don't.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = _stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def working(self) -> Iterator[None]:
        before = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(before)
        with torch.cuda.stream(self.stream):
            yield
        before.wait_stream(self.stream)

    def record(self, function: Function) -> Function:
        function()  # loads kernels and takes the memory that can't be taken while capturing
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
            function()
        return graph.replay


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Device:
    """A device of torch, by one of :data:`DEVICE_NAMES`.

    Raises :class:`bbans.errors.CoreError` for a device that is not there.
    """

    def __init__(self, name: str = "auto") -> None:
        if name not in DEVICE_NAMES:
            raise CoreError(f"there is no device {name!r}; expected one of: {', '.join(DEVICE_NAMES)}")
        if name == "cuda" and not torch.cuda.is_available():
            raise CoreError("torch sees no CUDA device; use --device cpu or auto")
        self.is_cuda = name != "cpu" and torch.cuda.is_available()
        self.torch = torch.device("cuda", torch.cuda.current_device()) if self.is_cuda else torch.device("cpu")
        self._threads = threading.local()

    @contextmanager
    def working(self) -> Iterator[None]:
        """In which to compute: without gradients, and on CUDA on a stream of this thread."""
        if getattr(self._threads, "working", False):
            yield
            return
        with GATE.beside_others(), self._on_stream():
            yield

    @contextmanager
    def working_alone(self) -> Iterator[None]:
        """The same, while no other thread does; not to be entered from within :meth:`working`."""
        with GATE.alone(), self._on_stream():
            yield

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        if self.is_cuda and not hasattr(self._threads, "stream"):
            self._threads.stream = _stream(self.torch)
        stream = torch.cuda.stream(self._threads.stream) if self.is_cuda else nullcontext()
        self._threads.working = True
        try:
            with torch.inference_mode(), stream:
                yield
        finally:
            self._threads.working = False

    def wait(self) -> None:
        """Until all is done that this thread asked for."""
        if self.is_cuda:
            torch.cuda.current_stream(self.torch).synchronize()

    def recorder(self) -> Recorder:
        """A new one."""
        return Graphs(self.torch) if self.is_cuda else Direct()

    @property
    def elements(self) -> int:
        """How large a matrix should be at most."""
        return CUDA_ELEMENTS if self.is_cuda else CPU_ELEMENTS

    @property
    def idle_memory(self) -> int:
        """How many bytes of buffers may be kept for later."""
        if not self.is_cuda:
            return CPU_MEMORY
        return int(torch.cuda.get_device_properties(self.torch).total_memory) // CUDA_SHARE
