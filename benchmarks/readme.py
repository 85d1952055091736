"""Makes the tables of README.md, `docs/` and paper/README.md from `results/`, between their markers.

python benchmarks/readme.py           # writes them
python benchmarks/readme.py --check   # fails if they are not what the results say
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bbans.bench import report

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def result(name: str) -> Any:
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def rates(papers: bool = True) -> str:
    """Of the papers' networks, or of the others."""
    lines = [
        "| model | data | 1 image | first 1,000 | all 10,000 | over float ELBO (1,000; 10,000) | frozen over float |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, model in result("rates")["models"].items():
        if name.startswith("gg-") != papers:
            continue
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
    lines = [
        "| data | codec | bits/dim | encode / decode, images/s | MB/s | peak memory, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for model in result("throughput")["models"].values():
        for speed in sorted(model["speeds"], key=lambda speed: speed["bits_per_dimension"]):
            setting = speed["setting"]
            how = speed["codec"]
            if setting:
                threads = f"{setting['threads']} thread{'s' if setting['threads'] > 1 else ''}"
                how = f"`{setting['model']}`{', K = ' + str(setting['steps']) if setting['steps'] else ''}, "
                how += f"{setting['engine']}, {threads}"
            lines.append(
                f"| {model['data']} | {how} | {speed['bits_per_dimension']:.4f} | "
                f"{speed['encode_images_per_second']:,.0f} / {speed['decode_images_per_second']:,.0f} | "
                f"{speed['encode_megabytes_per_second']:.2f} / {speed['decode_megabytes_per_second']:.2f} | "
                f"{speed['peak_megabytes']:,.0f} |"
            )
    return "\n".join(lines)


def growth() -> str:
    lines = [
        "| model | images | bits/dim | ms an image, encode / decode | peak memory, MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{name}` | {speed['images']:,} | {speed['bits_per_dimension']:.4f} | "
        f"{1000 / speed['encode_images_per_second']:.3f} / {1000 / speed['decode_images_per_second']:.3f} | "
        f"{speed['peak_megabytes']:,.0f} |"
        for name, speeds in result("throughput")["growth"].items()
        for speed in speeds
    ]
    return "\n".join(lines)


def cores() -> str:
    lines = ["| ANS core | lanes | push / pop, million symbols/s |", "| --- | --- | --- |"]
    lines += [
        f"| {core['core']} | {core['lanes']:,} | {core['push_million_per_second']:.0f} / "
        f"{core['pop_million_per_second']:.0f} |"
        for core in result("throughput")["cores"]
    ]
    return "\n".join(lines)


def steps() -> str:
    lines = [
        "| data | posterior | K | file, bits/dim | ELBO | ELBO, paper's steps | ms an image, encode / decode "
        "| times that of K = 0 |",
        "| --- " * 8 + "|",
    ]
    measured = [(model["data"], model["files"]) for model in result("steps")["models"].values()]
    measured.append(("binary MNIST, all 10,000", result("rate-vs-steps-mnist-binary")["files"]))
    for data, files in measured:
        lines += [
            f"| {data} | {row['posterior']} | {row['steps']} | {row['bits_per_dimension']:.4f} "
            + "".join(f"| {row[elbo]:.4f} " if elbo in row else "| " for elbo in ("elbo", "elbo_with_the_papers_steps"))
            + f"| {1000 * row['encode_seconds_per_image']:.2f} / {1000 * row['decode_seconds_per_image']:.2f} "
            f"| {row['encode_time_over_no_steps']:.1f} / {row['decode_time_over_no_steps']:.1f} |"
            for row in files
            if row["steps"] in (0, 1, 5, 10)
        ]
    return "\n".join(lines)


def baselines() -> str:
    sets = {"mnist-binary": "binary MNIST test", "mnist": "grey MNIST test", "fashion": "Fashion-MNIST test"}
    found: dict[str, dict[str, str]] = {}
    for name in sets:
        for row in result(f"baselines-{name}")["codecs"]:  # the smallest first: for each codec its best arrangement
            codec = row["codec"].split(",")[0]
            how = "stored through zstandard" if row["stored_rows"] else row["arrangement"]
            found.setdefault(codec, {}).setdefault(name, f"{row['bits_per_dimension']:.4f} ({how})")
    lines = ["| codec | " + " | ".join(sets.values()) + " |", "| --- " * (1 + len(sets)) + "|"]
    lines += [f"| {codec} | " + " | ".join(row.get(name, "") for name in sets) + " |" for codec, row in found.items()]
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


def own() -> str:
    others = ("zstd-19", "xz-9e", "bzip3", "zpaq-5", "jxl-10")
    lines = [
        f"| held-out images | networks | K = 0 / 1 / 5 / 10 | its model, and the rate with it | {' | '.join(others)} "
        "| embedding pays from about |",
        "| --- " * (5 + len(others)) + "|",
    ]
    for one in result("own-images")["sets"].values():
        rates, breaks = one["bits_per_dimension"], one["extrapolated_images_to_break_even"]
        with_steps = " / ".join(f"{rate:.4f}" for name, rate in rates.items() if name.startswith("K"))
        best = min(rate for name, rate in rates.items() if name.startswith("K"))
        with_model = best + 8 * one["embedded_model_bytes"] / one["pixels"]
        from_here = ", ".join(f"{breaks[name]:,} ({name})" for name in others if breaks.get(name))
        lines.append(
            f"| {one['images']:,} of {one['data']} | {one['model']} | {with_steps} "
            f"| {one['embedded_model_bytes']:,} bytes, {with_model:.4f} | "
            + " | ".join(f"{rates[name]:.4f}" if name in rates else "" for name in others)
            + f" | {from_here or 'never'} |"
        )
    return "\n".join(lines)


def worth() -> str:
    lines = [
        "| 10,000 test images | model | file | the best other codec | with the model in the file "
        "| smaller than the other from | encode / decode, images/s |",
        "| --- " * 7 + "|",
    ]
    for data, one in result("worth")["sets"].items():
        other, enough = one["best_other"], one["images_from_which_the_file_with_model_is_smaller"]
        lines.append(
            f"| {data} | `{one['model']}` | **{one['bits_per_dimension']:.4f}** "
            f"| {other['bits_per_dimension']:.4f} ({other['codec']}) | {one['bits_per_dimension_with_model']:.4f} "
            f"({one['model_bytes']:,} bytes of model) | {f'{enough:,} images' if enough else 'never'} "
            f"| {one['encode_images_per_second']:,.0f} / {one['decode_images_per_second']:,.0f} |"
        )
    return "\n".join(lines)


def stages() -> str:
    found = result("stages")["milliseconds_an_image"]
    lines = ["| ms an image, one thread | " + " | ".join(f"`{name}`" for name in found) + " |"]
    lines.append("| --- " * (1 + len(found)) + "|")
    for stage in next(iter(found.values())):
        lines.append(f"| {stage} | " + " | ".join(f"{row[stage]:.2f}" for row in found.values()) + " |")
    return "\n".join(lines)


def out_of_distribution() -> str:
    rows = result("out-of-distribution")["cases"]
    known = [key for key in rows[0] if key.startswith("K =")]
    lines = ["| model | images | " + " | ".join(known) + " | zstd -19 | file, `--model auto` |"]
    lines.append("| --- " * (4 + len(known)) + "|")
    lines += [
        f"| `{row['model']}` | {row['data']} | "
        + " | ".join(f"{row[key]:.4f}" for key in known)
        + f" | {row['zstandard alone']:.4f} | {row['file with --model auto']:.4f} |"
        for row in rows
    ]
    return "\n".join(lines)


def paper_overfitting() -> str:
    lines = [
        "| data | VAE, best epoch | VAE, last epoch | encoder fitted to the test images | wake | half-asleep |",
        "| --- " * 6 + "|",
    ]
    for path in sorted((HERE / "results").glob("paper-overfitting-*.json")):
        one = json.loads(path.read_text())
        curve = one["figure 6"]["vae"]["mean"]
        last = " | ".join(
            f"{one['figure 6'][name]['mean'][-1]:.4f} ± {one['figure 6'][name]['deviation'][-1]:.4f}"
            for name in ("wake", "half-asleep")
        )
        lines.append(
            f"| {path.stem.removeprefix('paper-overfitting-')}, {one['setting']['seeds']} seeds "
            f"| {min(curve):.4f} (epoch {curve.index(min(curve)) + 1}) | {curve[-1]:.4f} (epoch {len(curve)}) "
            f"| {one['figure 5']['optimal'][-1]:.4f} | {last} |"
        )
    return "\n".join(lines)


def paper_denoising() -> str:
    results = {
        path: json.loads(path.read_text()) for path in sorted((HERE / "results").glob("paper-overfitting-*.json"))
    }
    found = {
        path.stem.removeprefix("paper-overfitting-"): one["table 1"]
        for path, one in results.items()
        if "table 1" in one
    }
    names = list(next(iter(found.values())))
    lines = ["| data | " + " | ".join(names) + " |", "| --- " * (1 + len(names)) + "|"]
    lines += [f"| {data} | " + " | ".join(f"{row[name]:.4f}" for name in names) + " |" for data, row in found.items()]
    return "\n".join(lines)


def paper_curves() -> str:
    lines = ["| figure | objective | last epoch, mean ± deviation |", "| --- | --- | --- |"]
    for figure, name in (("3, a known generator", "consistency"), ("4, alpha", "alpha")):
        lines += [
            f"| {figure} | {objective} | {curve['mean'][-1]:.4f} ± {curve['deviation'][-1]:.4f} |"
            for objective, curve in result(f"paper-{name}")["curves"].items()
        ]
    return "\n".join(lines)


def paper_compression() -> str:
    lines = [
        "| model | encoder | K | file, bits/dim | -ELBO, the paper's steps | the paper | ms an image, both ways |",
        "| --- " * 7 + "|",
    ]
    for path in sorted((HERE / "results").glob("paper-compression-*.json")):
        one = json.loads(path.read_text())
        lines += [
            f"| {path.stem.removeprefix('paper-compression-')} | {row['posterior']} | {row['steps']} "
            f"| {row['bits_per_dimension']:.4f} | {row['elbo_with_the_papers_steps']:.4f} "
            f"| {one['paper'][row['posterior']][row['steps']]:.4f} "
            f"| {1000 * row['encode_seconds_per_image']:.2f} / {1000 * row['decode_seconds_per_image']:.2f} |"
            for row in one["files"]
            if row["steps"] in (0, 1, 2, 5, 7, 10)
        ]
    return "\n".join(lines)


def paper_suboptimality() -> str:
    found = result("paper-inference-suboptimality")
    rows = ("log p(x)", "L[q*_Flow]", "L[q*_FFG]", "L[q]", "approximation gap", "amortization gap", "inference gap")
    lines = ["| data | encoder | trained with | " + " | ".join(rows) + " |", "| --- " * (3 + len(rows)) + "|"]
    for column in found["columns"]:
        cells = [
            f"{column['nats'][row]['mean']:.2f} ± {column['nats'][row]['error']:.2f} ({column['poster'][row]:.2f})"
            for row in rows
        ]
        family = {"gaussian": "FFG", "flow": "Flow"}[column["family"]]
        lines.append(f"| {column['data']} | {column['encoder']} | {family} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paper_findings() -> str:
    """The poster's findings, as far as the columns that they are about are there."""
    columns = {
        (column["data"], column["encoder"], column["family"]): column["nats"]
        for column in result("paper-inference-suboptimality")["columns"]
    }
    lines = ["| finding | data | poster | here | holds |", "| --- " * 5 + "|"]

    def add(finding: str, data: str, poster: str, here: str, holds: bool) -> None:
        lines.append(f"| {finding} | {data} | {poster} | {here} | {'yes' if holds else 'no'} |")

    for data, theirs in (
        ("MNIST", ("1.57 to 0.78", "54%", "0.4", "12.5", "1.6")),
        ("Fashion-MNIST", ("4.17 to 3.19", "77%", "1.0", "33.2", "2.2")),
    ):
        regular, large = columns.get((data, "regular", "gaussian")), columns.get((data, "large", "gaussian"))
        flow, plain = columns.get((data, "regular", "flow")), columns.get((data, "no annealing", "flow"))
        if regular and large:
            before, after = regular["amortization gap"]["mean"], large["amortization gap"]["mean"]
            what = "a larger encoder lowers the amortization gap (FFG)"
            add(what, data, theirs[0], f"{before:.2f} to {after:.2f}", after < before)
        if regular:
            share = regular["amortization gap"]["mean"] / regular["inference gap"]["mean"]
            mostly = data == "Fashion-MNIST"
            what = f"amortization is {'most' if mostly else 'about half'} of the inference gap (FFG)"
            add(what, data, theirs[1], f"{share:.0%}", share > 0.6 if mostly else 0.35 < share < 0.65)
            over = regular["flow over FFG"]["mean"]
            add("trained with FFG: a flow wins at most 2.2 nats", data, theirs[2], f"{over:.1f}", over <= 2.2)
        if flow:
            over = flow["flow over FFG"]["mean"]
            add("trained with Flow: it wins more than 10 nats", data, theirs[3], f"{over:.1f}", over > 10)
        if flow and plain:
            before, after = flow["flow over FFG"]["mean"], plain["flow over FFG"]["mean"]
            add("...and far less without annealing", data, theirs[4], f"{after:.1f}", after < 0.5 * before)
    return "\n".join(lines)


def gaps_files() -> str:
    lines = [
        "| model | images | file at K = 0, bits/dim | L[q], bits/dim | file over L[q] |",
        "| --- " * 5 + "|",
    ]
    lines += [
        f"| `{name}` | {row['images']:,} | {row['file']:.4f} | {row['elbo']:.4f} | {row['file_over_elbo']:+.2%} |"
        for name, rows in result("gaps-files")["models"].items()
        for row in rows
    ]
    return "\n".join(lines)


def gaps_example() -> str:
    one = result("gaps-gg-mnist-binary")
    header = ["", "nats", "±", "bits/dim", "of the file"]
    return "\n".join(["```", report.table(header, one["table"], names=1), "", *one["verdict"], "```"])


def attacks() -> str:
    columns = ("tried", "refused", "harmless", "crashes", "late", "silent errors")
    lines = [f"| attack | {' | '.join(columns)} |", "| --- " * (1 + len(columns)) + "|"]
    counts = result("reliability")["attacks"]
    counts["all"] = {column: sum(row.get(column, 0) for row in counts.values()) for column in columns}
    lines += [
        f"| {kind} | {' | '.join(f'{row.get(column, 0):,}' for column in columns)} |" for kind, row in counts.items()
    ]
    return "\n".join(lines)


def fuzzing() -> str:
    columns = ("tried", "edges", "features", "crashes or hangs")
    lines = [f"| what is fuzzed | minutes | {' | '.join(columns)} |", "| --- " * (2 + len(columns)) + "|"]
    lines += [
        f"| {row['target']} | {row['minutes']:g} | {' | '.join(f'{row[column]:,}' for column in columns)} |"
        for row in result("fuzzing")["targets"].values()
    ]
    return "\n".join(lines)


def kills() -> str:
    return "\n".join(
        f"`bbans {command}` was killed at each of {row['killed at']:,} calls: {row['new file']:,} times the new file "
        f"was there, whole, {row['killed at'] - row['new file']:,} times the old one."
        for command, row in result("reliability")["kills"].items()
    )


def soak() -> str:
    trips = result("reliability")["soak"]
    return (
        f"{trips['round_trips']:,} round trips of {trips['images']:,} images ({trips['bytes']:,} bytes) in "
        f"{trips['minutes']:.0f} minutes, {trips['pairs_of_settings']:,} pairs of settings; none lost a byte."
    )


def zarr_store() -> str:
    lines = ["| codec of the array | bytes of the store | bits/dim |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {row['bytes']:,} | {row['bits_per_dimension']:.4f} |"
        for name, row in result("zarr")["stores"].items()
    ]
    return "\n".join(lines)


def as_sets() -> str:
    model = result("sets")["models"]["mnist-binary"]
    test, training = model["10,000 test"], model["60,000 training"]
    return (
        f"The {test['images']:,} images of the first row then take **{test['unordered_bits_per_dimension']:.4f}**, "
        f"{test['saved_bits'] / test['images']:.1f} bits an image less; of {training['images']:,}, "
        f"{training['saved_bits'] / training['images']:.1f} bits."
    )


def sets() -> str:
    lines = [
        "| model | images | in order, bits/dim | as a set | saved, of the closed form | time, encode / decode |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, model in result("sets")["models"].items():
        for part in ("1,000 test", "10,000 test", "60,000 training"):
            row = model[part]
            several = row.get("each", [row])
            ordered, unordered = (
                sum(each[f"{kind}_bits_per_dimension"] for each in several) / len(several)
                for kind in ("ordered", "unordered")
            )
            spent = row.get("seconds_of_all_threads")
            times = f"{spent['encode_ratio']:.2f} / {spent['decode_ratio']:.2f}" if spent else ""
            spread = f" ± {row['share_deviation_of_mean']:.1%}" if "each" in row else ""
            lines.append(
                f"| `{name}` | {part} | {ordered:.4f} | {unordered:.4f} | {row['share']:.1%}{spread} | {times} |"
            )
    return "\n".join(lines)


def photos() -> str:
    codecs = {"jxl-9": "JPEG XL 9", "jxl-7": "JPEG XL 7", "webp": "WebP", "png": "PNG"}
    lines = [
        f"| images | bbans, each alone | bbans, as a set | {' | '.join(codecs.values())} | smaller than JPEG XL 9 "
        "| zpaq -m5 (bbans and JPEG XL 9 on the same) |",
        "| --- " * (5 + len(codecs)) + "|",
    ]
    for name, one in result("photos")["sets"].items():
        rates, slow = one["bits_per_value"], one["slow_bits_per_value"]
        with_zpaq = ""
        if slow:
            with_zpaq = f"{slow['zpaq-5']:.3f} ({slow['bbans']:.3f}, {slow['jxl-9']:.3f}) on {one['slow_images']}"
        lines.append(
            f"| {one['images']} of `{name}` | **{rates['bbans']:.3f}** | **{rates['bbans, as a set']:.3f}** | "
            + " | ".join(f"{rates[codec]:.3f}" for codec in codecs)
            + f" | {one['smaller_than_best']} of {one['images']} "
            + f"| {with_zpaq} |"
        )
    return "\n".join(lines)


def photos_speed() -> str:
    lines = ["| images | codec | threads | encode / decode, megapixels/s |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row['images']}, of `{name}` | {row['codec'].replace('jxl-', 'JPEG XL ')} | {row['threads']} "
        f"| {row['encode_megapixels_per_second']:.2f} / {row['decode_megapixels_per_second']:.2f} |"
        for name, rows in result("photos")["speeds"].items()
        for row in rows
    ]
    return "\n".join(lines)


def photos_training() -> str:
    lines = ["| steps | megapixels seen | held-out, bits/value |", "| --- | --- | --- |"]
    training = result("photo-training")
    for row in training["reports"]:
        doubled = row["step"] % 250 == 0 and (row["step"] // 250).bit_count() == 1
        if doubled or row["step"] in (training["steps"] - training["decay"], training["steps"]):
            lines.append(f"| {row['step']:,} | {row['megapixels']:,.0f} | {row['held_out']:.3f} |")
    return "\n".join(lines)


def photos_large() -> str:
    lines = [
        "| image | bits/value | threads | encode / decode, megapixels/s | peak memory, MB, encode / decode |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in result("photos")["large"]:
        height, width, *_ = row["shape"]
        peaks = " / ".join(
            f"{row[f'{side}_peak_megabytes']:,.0f} ({row[f'{side}_megabytes_before']:,.0f})"
            for side in ("encode", "decode")
        )
        lines.append(
            f"| {height:,} x {width:,}, {row['raw_megabytes']:,.0f} MB, of `{row['made of']}` "
            f"| {row['bits_per_value']:.3f} | {row['threads']} | {row['encode_megapixels_per_second']:.2f} / "
            f"{row['decode_megapixels_per_second']:.2f} | {peaks} |"
        )
    return "\n".join(lines)


def without_latents() -> str:
    one = result("without-latents")
    return (
        f"With the latents of `cifar10` set to 0, its context network alone codes the {one['images']:,} test images of "
        f"CIFAR-10 at {one['bits_per_dimension_without_latents']:.4f} bits per dimension; the negative ELBO of the "
        f"whole model is {one['negative_elbo']:.4f}."
    )


TABLES: dict[Path, dict[str, Callable[[], str]]] = {
    README: {
        "worth": worth,
        "photos": photos,
        "as-sets": as_sets,
        "overhead": lambda: rates(papers=False),
        "stages": stages,
        "out-of-distribution": out_of_distribution,
        "rates": rates,
        "throughput": throughput,
        "growth": growth,
        "cores": cores,
        "steps": steps,
        "baselines": baselines,
        "embedding": embedding,
        "own": own,
        "zarr": zarr_store,
    },
    README.parent / "docs" / "reliability.md": {
        "attacks": attacks,
        "fuzzing": fuzzing,
        "kills": kills,
        "soak": soak,
    },
    README.parent / "docs" / "gaps.md": {"gaps-example": gaps_example, "gaps-files": gaps_files},
    README.parent / "docs" / "sets.md": {"sets": sets},
    README.parent / "docs" / "photos.md": {
        "photos": photos,
        "photos-speed": photos_speed,
        "photos-large": photos_large,
        "photos-training": photos_training,
        "without-latents": without_latents,
    },
    HERE / "paper" / "README.md": {
        "curves": paper_curves,
        "overfitting": paper_overfitting,
        "denoising": paper_denoising,
        "compression": paper_compression,
        "suboptimality": paper_suboptimality,
        "findings": paper_findings,
    },
}


def main() -> None:
    for path, tables in TABLES.items():
        old = new = path.read_text(encoding="utf-8")
        for name, table in tables.items():
            parts = re.split(rf"(?s)(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", new, maxsplit=1)
            assert len(parts) == 2, f"{path} has no place for {name}"
            try:
                new = parts[0] + table() + "\n" + parts[1]
            except FileNotFoundError as error:
                print(f"{name} is left as it is, until it is measured: there is no {error.filename}")
        if "--check" in sys.argv and new != old:
            sys.exit(f"{path} is not what benchmarks/results say: run python benchmarks/readme.py")
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
