"""The examples of the README and of `docs/` run as they stand there, page by page, each in a folder of its own.

What is marked as `console` is only shown: it installs, or takes an hour.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)
LANGUAGES = {"sh", "python", "toml", "console"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text."""
    return [(match[1], match[2]) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_the_examples_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    names: dict[str, Any] = {"__name__": "__main__"}
    imported = {name for _, text in blocks(page) for name in re.findall(r"^(?:import|from) (\w+)", text, re.M)}
    if missing := [name for name in sorted(imported) if find_spec(name) is None]:
        pytest.skip(f"without {', '.join(missing)}")
    for language, text in blocks(page):
        assert language in LANGUAGES, f"a block of {language} that nobody tests"
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
        elif language == "sh" and page.name != "README.md":
            done = subprocess.run(
                ["bash", "-eu", "-c", text], env={**os.environ, "PATH": programs}, stderr=-1, text=True
            )
            assert done.returncode == 0, done.stderr
        elif language == "toml":
            Path("recipe.toml").write_text(text, encoding="utf-8")
