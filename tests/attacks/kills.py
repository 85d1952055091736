"""Kills a process at each call that writing a file makes, and looks at what is left.

    python tests/attacks/kills.py FOLDER COMMAND TARGET

`COMMAND` is `compress` or `decompress`. In `FOLDER`, `images.npy` and `images.bba` hold the same images, and `model` is
their model. Prints at how many calls it killed, and at how many of these the new file was there already.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import bbans.cli
import bbans.codec
import bbans.container
import bbans.npy

WATCHED = {module.__file__ for module in (bbans.npy, bbans.container)}
"""What writes files: each call from there, or into there, is a point to be killed at."""


def run(command: str, target: str) -> None:
    source = "images.npy" if command == "compress" else "images.bba"
    options = ["--model", "model", "--engine", "numpy", "--ans", "numpy", "--threads", "1", "-q", "-f"]
    bbans.cli.main([command, source, "-o", target, *options], standalone_mode=False)


def killed(command: str, target: str, point: int) -> bool:
    """Run in a child that is killed at the call of that number; whether there were so many."""
    child = os.fork()
    if child == 0:
        count = 0

        def watch(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            if event in ("call", "c_call") and frame.f_code.co_filename in WATCHED:
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        sys.setprofile(watch)
        run(command, target)
        sys.setprofile(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, f"{command} failed"
    return False


def main(folder: str, command: str, name: str) -> None:
    os.chdir(folder)
    target = Path(name)
    run(command, name)
    new, old = target.read_bytes(), b"old"
    point = replaced = 0
    target.write_bytes(old)
    while killed(command, name, point):
        content = target.read_bytes()
        assert content in (old, new), f"half a file of {len(content)} bytes after call {point}"
        replaced += content == new
        target.write_bytes(old)
        for left in Path().glob(f".{name}.*"):
            left.unlink()
        point += 1
    assert target.read_bytes() == new
    print(point, replaced)


if __name__ == "__main__":
    main(*sys.argv[1:])
