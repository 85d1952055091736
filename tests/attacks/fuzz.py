"""Fuzzing that coverage guides.

    pip install atheris
    python tests/attacks/fuzz.py TARGET FOLDER [options of libFuzzer, such as -max_total_time=600]

The targets are those of `targets.py`. `FOLDER` keeps the inputs that reached new code. An input that ends in anything
but an error of bbans, or takes long, is written to the current folder; once mended, it belongs in
`tests/attacks/found/TARGET/`, where the tests try it for ever.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    import atheris

    name, folder = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=["bbans"]):
        from attacks.targets import TARGETS, attempt
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (folder / f"seed{number}").write_bytes(seed)
    options = ["-timeout=5", "-rss_limit_mb=2048", "-max_len=32768", *sys.argv[3:], str(folder)]
    atheris.Setup([sys.argv[0], *options], lambda data: attempt(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
