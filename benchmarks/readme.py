"""Makes the tables of the README from `results/`, between its markers.

python benchmarks/readme.py           # writes them
python benchmarks/readme.py --check   # fails if they are not what the results say
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def result(name: str) -> Any:
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def rates() -> str:
    lines = [
        "| model | data | 1 image | first 1,000 | all 10,000 | over float ELBO (1,000; 10,000) | frozen over float |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, model in result("rates")["models"].items():
        files = {row["images"]: row for row in model["files"]}
        over = [files[n]["bits_per_dimension"] / files[n]["float_elbo"] - 1 for n in (1000, 10000)]
        frozen = files[10000]["frozen_elbo"] / files[10000]["float_elbo"] - 1
        lines.append(
            f"| `{name}` | {model['data']} test | {model['single_image_bytes']['mean']:.0f} bytes "
            f"| {files[1000]['bits_per_dimension']:.4f} | {files[10000]['bits_per_dimension']:.4f} "
            f"| {over[0]:.2%} / {over[1]:.2%} | {frozen:.3%} |"
        )
    return "\n".join(lines)


def throughput() -> str:
    lines = ["| data | codec | bits/dim | encode, images/s | decode, images/s |", "| --- | --- | --- | --- | --- |"]
    for model in result("throughput")["models"].values():
        lines += [
            f"| {model['data']} | {row['codec']} | {row['bits_per_dimension']:.4f} "
            f"| {row['encode_images_per_second']:,.0f} | {row['decode_images_per_second']:,.0f} |"
            for row in model["codecs"]
        ]
    return "\n".join(lines)


def steps() -> str:
    lines = [
        "| data | posterior | K | file, bits/dim | ELBO | ELBO, paper's steps | ms an image, encode / decode |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model in result("steps")["models"].values():
        lines += [
            f"| {model['data']} | {row['posterior']} | {row['steps']} | {row['bits_per_dimension']:.4f} "
            f"| {row['elbo']:.4f} | {row['elbo_with_the_papers_steps']:.4f} "
            f"| {1000 * row['encode_seconds_per_image']:.2f} / {1000 * row['decode_seconds_per_image']:.2f} |"
            for row in model["files"]
            if row["steps"] in (0, 1, 5, 10)
        ]
    return "\n".join(lines)


def embedding() -> str:
    others = ["zstd -19", "xz -9e", "bzip3"]
    lines = [
        "| images | bbans | its model | " + " | ".join(others) + " | a file with the model is smaller from about |",
        "| --- " * (4 + len(others)) + "|",
    ]
    for model in result("embedding")["models"].values():
        for source, part in (("mnist_train", "training"), ("mnist_test", "test")):
            row = model["files"][source][-1]
            breaks = row["extrapolated_images_to_break_even"]
            known = {other: breaks[other] for other in others if other in breaks}
            from_here = ", ".join(
                f"{count:,} ({other})" if count else f"never ({other})" for other, count in known.items()
            )
            sizes = " | ".join(f"{row['others'][other]:,}" if other in row["others"] else "" for other in others)
            lines.append(
                f"| {row['images']:,} of {model['data']} {part} | {row['bbans_chunks']:,} "
                f"| {model['model_bytes']['embedded']:,} | {sizes} | {from_here} |"
            )
    return "\n".join(lines)


def main() -> None:
    old = new = README.read_text(encoding="utf-8")
    for name, table in (
        ("rates", rates()),
        ("throughput", throughput()),
        ("steps", steps()),
        ("embedding", embedding()),
    ):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        assert pattern.search(new), f"README.md has no place for {name}"
        new = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", new)
    if "--check" in sys.argv:
        sys.exit(new != old and "README.md is not what benchmarks/results say: run python benchmarks/readme.py")
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
