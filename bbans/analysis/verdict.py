"""What to do about the gaps, in words, with what it saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbans.analysis.coded import name_of
from bbans.analysis.encoders import FURTHER, HALF_ASLEEP, LARGER
from bbans.analysis.gaps import AMORTIZATION, APPROXIMATION, FLOW, GAUSSIAN, INFERENCE, LIKELIHOOD, Average, Measured

WORTH = 0.005
"""What saves less than this share of a file isn't worth doing..."""
STANDARD_ERRORS = 2.0
"""...nor what may have come about by chance."""
ALMOST = 0.98
"""What saves as much of the most that can be saved is taken if it was tried earlier: fewer steps, no new encoder."""
ADVICE = {
    LARGER: "train a larger encoder: the one there is too small",
    HALF_ASLEEP: "train the encoder half-asleep: it doesn't generalize",
    FURTHER: "train the encoder for longer",
}


@dataclass(frozen=True)
class Units:
    """What turns nats an image into other units."""

    pixels: int
    file_nats: float
    """Of the file, for each image."""

    def share(self, average: Average) -> float:
        """Of the file."""
        return average.mean / self.file_nats

    def row(self, name: str, values: Tensor) -> list[str]:
        """Values ``(images,)`` on average: nats with the standard error, bits per dimension, percent of the file."""
        average = Average.of(values)
        rate = average.mean / (self.pixels * math.log(2))
        return [name, f"{average.mean:.2f}", f"{average.error:.2f}", f"{rate:.4f}", f"{self.share(average):.2%}"]

    def say(self, average: Average) -> str:
        """In a sentence."""
        bits = f"{average.mean / math.log(2):.2f} bits an image"
        return f"{average.mean:.2f} ± {average.error:.2f} nats, {bits}, {self.share(average):.2%} of the file"


@dataclass(frozen=True)
class Remedy:
    """Something that could be done, and the nats an image that it was measured to save."""

    name: str
    advice: str
    saved: Average
    share: float
    """Of the file."""

    @property
    def takes_steps(self) -> bool:
        """Whether it takes time at both ends, instead of another encoder."""
        return self.advice.startswith("--steps")

    @property
    def worth_it(self) -> bool:
        """Whether it saves something that hardly came about by chance."""
        return self.share >= WORTH and not self.saved.mean < STANDARD_ERRORS * self.saved.error


def table_rows(measured: Measured, posterior: str, units: Units) -> list[list[str]]:
    """Every quantity and every gap."""
    rows = [units.row(f"L[q], {name}", estimate.value) for name, estimate in measured.encoders.items()]
    for name, estimate in measured.optima.items():
        rows.append(units.row(f"L[q*], {name}" if name in (GAUSSIAN, FLOW) else name, estimate.value))
    if FLOW in measured.optima:
        rows.append(units.row(LIKELIHOOD, measured.log_likelihood))
    return rows + [units.row(name, values) for name, values in measured.gaps(posterior).items()]


def remedies(measured: Measured, posterior: str, steps: Sequence[int], units: Units) -> list[Remedy]:
    """All that was tried, in place of an encoder."""
    advice = {name_of(posterior, count): f"--steps {count}, which refines the posterior" for count in steps if count}
    advice |= ADVICE
    found = []
    for name, estimate in measured.encoders.items():
        if name != posterior:
            saved = Average.of(estimate.value - measured.encoders[posterior].value)
            found.append(Remedy(name, advice.get(name, f"--posterior {name}"), saved, units.share(saved)))
    return found


def verdict(
    measured: Measured, posterior: str, steps: Sequence[int], units: Units, on_training_images: Measured | None = None
) -> list[str]:
    """Sentences: what inference costs, why, what each remedy saves, and which to take."""
    gaps = {name: Average.of(values) for name, values in measured.gaps(posterior).items()}
    amortization = gaps[AMORTIZATION]
    lines = [
        f"Inference costs {units.say(gaps[INFERENCE])}: what a file pays with the encoder {posterior} over -log p(x).",
        f"The encoder is {units.say(amortization)} away from the best Gaussian for each image (amortization),",
        f"and that Gaussian {units.say(gaps[APPROXIMATION])} away from the true posterior (approximation).",
    ]
    if on_training_images is not None:
        seen = Average.of(on_training_images.gaps(posterior)[AMORTIZATION])
        rest = Average(amortization.mean - seen.mean, math.hypot(amortization.error, seen.error))
        lines.append(
            f"On training images the encoder is {seen.mean:.2f} ± {seen.error:.2f} nats away, for being small or "
            f"little trained; the rest, {units.say(rest)}, is that it generalizes less well."
        )
    tried = remedies(measured, posterior, steps, units)
    for remedy in tried:
        share = remedy.saved.mean / amortization.mean if amortization.mean > 0 else math.nan
        lines.append(f"{remedy.name}: saves {units.say(remedy.saved)}, {share:.0%} of the amortization gap.")
    flow = Average.of(
        torch.maximum(measured.optima[FLOW].value, measured.optima[GAUSSIAN].value) - measured.optima[GAUSSIAN].value
    )
    lines.append(f"A more flexible posterior (a flow, at its best): would save at most {units.say(flow)}.")
    if not set(ADVICE) & set(measured.encoders):
        lines.append(f"A better encoder, however it is trained: would save at most {units.say(amortization)}.")
    return [*lines, "", f"Verdict: {_conclusion(tried, amortization, flow, units)}"]


def _conclusion(tried: list[Remedy], amortization: Average, flow: Average, units: Units) -> str:
    worth = [remedy for remedy in tried if remedy.worth_it]
    if worth:
        most = max(remedy.saved.mean for remedy in worth)
        first = next(remedy for remedy in worth if remedy.saved.mean >= ALMOST * most)
        others = [remedy for remedy in worth if remedy.takes_steps != first.takes_steps]
        second = max(others, key=lambda remedy: remedy.saved.mean, default=None)
        said = f"{first.advice}: {first.saved.mean / math.log(2):.2f} bits an image, {first.share:.2%} of the file."
        return f"{said} Or {second.advice}: {second.share:.2%}." if second else said
    if units.share(amortization) < WORTH and units.share(flow) < WORTH:
        return f"nothing: what is to be won is less than {WORTH:.1%} of the file."
    if flow.mean > amortization.mean:
        return "a more flexible posterior, which files can't be coded with; nothing else that was tried helps."
    return "a better encoder; nothing that was tried is one."
