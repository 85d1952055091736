"""Coverage-guided fuzzing of each target of `tests/attacks/targets.py` (needs atheris).

python benchmarks/fuzzing.py WORK [MINUTES]

`WORK` keeps what reached new code, so that each run goes on where the last one ended, and what was found.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from data import save

PROGRAM = Path(__file__).parent.parent / "tests" / "attacks" / "fuzz.py"
TARGETS = {
    "raw": "any bytes",
    "whole_file": "header, payloads and index, checksums made right",
    "payload": "a bits-back payload",
    "embedded": "an embedded model",
    "model": "a model's file: description and tensors",
    "collection": "members and table of a collection, checksums made right",
}


def fuzz(target: str, work: Path, minutes: float) -> dict[str, object]:
    """How many inputs were tried, what they reached, and how many ended badly, in all of the runs so far."""
    found = work / "found" / target
    found.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, PROGRAM, target, work / target, f"-max_total_time={round(60 * minutes)}"]
    done = subprocess.run([*program, f"-artifact_prefix={found}/"], capture_output=True, text=True)
    tried = re.findall(r"#(\d+)\t", done.stderr)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
    if not tried or not reached:
        sys.exit(f"{target}: {done.stderr}")
    return {
        "target": TARGETS[target],
        "minutes": minutes,
        "tried": int(tried[-1]),
        "edges": int(reached[-1][0]),
        "features": int(reached[-1][1]),
        "crashes or hangs": len(list(found.iterdir())),
    }


if __name__ == "__main__":
    work, minutes = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 10
    save("fuzzing", {"targets": {target: fuzz(target, work, minutes) for target in TARGETS}})
