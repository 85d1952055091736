"""The analysis of inference, against models whose posteriors are known, and against what files cost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import random_images
from torch import Generator, Tensor

import bbans
from bbans.analysis.coded import coded_posteriors
from bbans.analysis.estimates import (
    Annealing,
    Estimate,
    annealed_importance,
    elbo,
    importance_weighted,
    log_joint_of,
)
from bbans.analysis.gaps import (
    AMORTIZATION,
    ANNEALED,
    FLOW,
    GAUSSIAN,
    IMPORTANCE,
    Amortized,
    Effort,
    Measured,
    measure_bounds,
    measure_encoders,
)
from bbans.analysis.posteriors import Fitting, ImageFlow
from bbans.analysis.verdict import Units, verdict
from bbans.cli import main
from bbans.errors import RecipeError
from bbans.evaluated import EvaluatedModel
from bbans.intervals.gaussian import CENTRE_FRACTION
from bbans.model import Model, save_model
from bbans.nets import DiagonalGaussian, FlowVAE
from bbans.portable.engines import engine_named
from bbans.training.export import export
from bbans.training.loop import bits_per_dimension, build, train
from bbans.training.recipe import Recipe
from bbans.training.run import run
from bbans.training.thaw import thaw

EFFORT = Effort(
    elbo_samples=400,
    gaussian=Fitting(steps=80, rounds=3),
    flow=Fitting(steps=120, rounds=3, samples=32, learning_rate=0.01),
    importance_samples=4000,
    annealing=Annealing(chains=64, temperatures=100, leapfrog=3),
)


@dataclass(frozen=True)
class LinearGaussian:
    """x = W z + noise, with two latents: all that is estimated has a closed form."""

    weight: Tensor
    deviation: float
    x: Tensor

    @staticmethod
    def drawn(correlated: bool) -> LinearGaussian:
        noise = Generator().manual_seed(3)
        directions = [[1.0, 0.9], [0.9, 1.0], [0.5, 0.4]] if correlated else [[1.0, 0.0], [0.0, 1.5], [0.0, 0.0]]
        weight = torch.tensor(directions, dtype=torch.float64)
        z = torch.randn(6, 2, generator=noise, dtype=torch.float64)
        return LinearGaussian(weight, 0.5, z @ weight.T + 0.5 * torch.randn(6, 3, generator=noise, dtype=torch.float64))

    def log_joint(self, z: Tensor) -> Tensor:
        """See :data:`bbans.analysis.estimates.LogJoint`."""
        away = (self.x - z @ self.weight.T) / self.deviation
        of_x = -0.5 * (away**2).sum(-1) - self.x.shape[1] * (math.log(self.deviation) + 0.5 * math.log(2 * math.pi))
        return of_x - 0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)

    @property
    def precision(self) -> Tensor:
        """Of the posterior, the same for every image."""
        return torch.eye(2, dtype=torch.float64) + self.weight.T @ self.weight / self.deviation**2

    @property
    def mean(self) -> Tensor:
        """Of the posteriors, ``(images, latents)``."""
        return torch.linalg.solve(self.precision, (self.x @ self.weight / self.deviation**2).T).T

    @property
    def log_likelihood(self) -> Tensor:
        """Log p(x), a Gaussian with covariance W W' + deviation**2."""
        covariance = self.weight @ self.weight.T + self.deviation**2 * torch.eye(3, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(self.x)

    @property
    def approximation_gap(self) -> float:
        """KL of the best diagonal Gaussian, which has the posterior's mean and the diagonal of its precision."""
        return 0.5 * float(self.precision.diagonal().log().sum() - torch.logdet(self.precision))

    def divergence(self, q: DiagonalGaussian) -> Tensor:
        """KL of any diagonal Gaussian to the posterior."""
        covariance = torch.diag_embed(torch.exp(2 * q.log_deviation))
        own = torch.distributions.MultivariateNormal(q.mean, covariance)
        posterior = torch.distributions.MultivariateNormal(self.mean, precision_matrix=self.precision)
        return torch.distributions.kl_divergence(own, posterior)


def bad_encoder(model: LinearGaussian) -> DiagonalGaussian:
    return DiagonalGaussian(0.7 * model.mean + 0.1, torch.full_like(model.mean, -0.6))


def assert_near(estimate: Estimate, truth: Tensor, bias: float = 0.0) -> None:
    """Within four standard errors for each image, and what the estimator is known to be too low by."""
    away = (estimate.value - truth).abs()
    assert (away < 4 * estimate.error + bias + 1e-9).all(), (away, estimate.error)


@pytest.mark.parametrize("correlated", [False, True])
def test_all_estimators_agree_with_closed_forms(correlated: bool) -> None:
    model = LinearGaussian.drawn(correlated)
    truth, start = model.log_likelihood, bad_encoder(model)
    noise = Generator().manual_seed(0)
    encoders = measure_encoders(model.log_joint, {"bad": start}, EFFORT.elbo_samples, noise)
    optima = measure_bounds(model.log_joint, start, EFFORT, noise)

    assert_near(encoders["bad"], truth - model.divergence(start))
    assert_near(optima[GAUSSIAN], truth - model.approximation_gap, bias=2e-3)
    assert_near(optima[FLOW], truth, bias=0.2 * model.approximation_gap + 1e-3)
    assert (optima[FLOW].value < truth + 4 * optima[FLOW].error).all()
    assert_near(optima[IMPORTANCE], truth)
    assert_near(optima[ANNEALED], truth)
    assert max(float(optima[name].error.max()) for name in (IMPORTANCE, ANNEALED)) < 0.3

    found = {name: values.mean() for name, values in Measured(encoders, optima).gaps("bad").items()}
    approximation = model.approximation_gap
    assert float(found["approximation gap"]) == pytest.approx(approximation, abs=0.03)
    amortization = float(model.divergence(start).mean()) - approximation
    assert float(found["amortization gap"]) == pytest.approx(amortization, rel=0.1)
    assert float(found["inference gap"]) == pytest.approx(amortization + approximation, rel=0.1)


def test_importance_sampling_and_annealing_mend_a_bad_proposal() -> None:
    """Where a few draws from q say little of log p(x), many do, and so do a few that are annealed."""
    model = LinearGaussian.drawn(correlated=True)
    start, noise = bad_encoder(model), Generator().manual_seed(1)
    bounds = [importance_weighted(model.log_joint, start, count, noise).value for count in (2, 100, 10_000)]
    bounds.append(annealed_importance(model.log_joint, start, EFFORT.annealing, noise).value)
    away = [float((model.log_likelihood - bound).mean()) for bound in bounds]
    assert away[0] > 0.4 and max(map(abs, away[1:])) < 0.2
    assert elbo(model.log_joint, start, 1000, noise).value.mean() < bounds[1].mean()


def test_thawed_networks_say_what_the_integers_do(model: Model) -> None:
    x = random_images(model, 40).reshape(40, -1).astype(np.int64)
    pixels = torch.from_numpy(x).float()
    for posterior, network in thaw(model).items():
        evaluated = EvaluatedModel.of(model, posterior, engine_named("numpy"))
        q = network.posterior(pixels)
        outputs = evaluated.evaluate_encoder(x) / 65536
        assert np.abs(outputs - torch.cat([q.mean, q.log_deviation], 1).numpy()).max() < 0.02
        z = np.random.default_rng(0).integers(0, 1 << model.latent_precision, (40, model.latents))
        latents = torch.from_numpy(np.ldexp(evaluated.bins.centres[z], -CENTRE_FRACTION)).float()
        expected = -float(network.log_likelihood(pixels, latents).sum()) / math.log(2)
        assert evaluated.likelihood(z).bits(x) == pytest.approx(expected, rel=2e-3)
        z_again = latents.clone().requires_grad_()
        network.log_likelihood(pixels, z_again).sum().backward()
        assert z_again.grad is not None and bool(z_again.grad.abs().sum(1).min() > 0)


def test_a_file_costs_what_the_elbo_says() -> None:
    """A file of 1,000 images costs half a percent more than a large one, for what it takes to begin."""
    model = bbans.load_model("gg-mnist-binary")
    images = bbans.sample_images(model, 1000, seed=5)
    x = images.reshape(1000, -1)
    coded = coded_posteriors(model, "amortized", x, (10,), engine_named("numpy"), torch.device("cpu"))
    log_joint = log_joint_of(thaw(model)["amortized"], torch.from_numpy(x).float())
    bounds = measure_encoders(log_joint, coded, 2, Generator().manual_seed(0))
    for name, steps in (("amortized", 0), ("amortized, K = 10", 10)):
        bits = -float(bounds[name].value.sum()) / math.log(2)
        size = 8 * len(bbans.Codec.of(model, posterior="amortized", steps=steps).compress(images))
        assert 0.998 < size / bits < 1.015, (name, size / bits)


FLOW_RECIPE = Recipe(
    "flow", (5, 4), "bernoulli", latents=2, hidden=(12,), latent_precision=8, epochs=6, posterior="flow",
    encoder_hidden=(30, 20), annealing="entropy", annealing_epochs=2, batch_size=20, learning_rate=1e-2,
    averaging=0.5, validation_images=50,
)  # fmt: skip


def squares(count: int) -> np.ndarray:
    """Grey images with a bright square somewhere."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 5, 4), np.uint8)
    for image, row, column in zip(images, rng.integers(0, 3, count), rng.integers(0, 2, count), strict=True):
        image[row : row + 3, column : column + 3] = 255
    return images


def test_a_flow_is_trained_but_not_frozen(tmp_path: Path) -> None:
    images = squares(550)
    pixels = torch.from_numpy(images[:50].reshape(50, -1) / 255).float()
    network = train(FLOW_RECIPE, images)
    assert isinstance(network, FlowVAE) and [layer.out_features for layer in network.encoder[::2]] == [30, 20, 104]
    assert bits_per_dimension(network, pixels) < 0.7 * bits_per_dimension(build(FLOW_RECIPE), pixels)
    # What it says of its own density is right: weights against any other density have a mean of 1.
    q, noise = Amortized(network, pixels), Generator().manual_seed(0)
    with torch.no_grad():
        drawn = q.draw(1000, noise)[0]
    narrow = DiagonalGaussian(drawn.mean(0), torch.log(0.5 * drawn.std(0)))
    assert_near(importance_weighted(narrow.log_prob, q, 4000, noise), torch.zeros(50), bias=0.02)
    # Fitting to single images starts from what the network says of them.
    fitted = ImageFlow.of_network(network, pixels)
    for same, other in zip(*(which.draw(3, Generator().manual_seed(1)) for which in (q, fitted)), strict=True):
        assert torch.allclose(same, other, atol=1e-4)
    with pytest.raises(RecipeError, match="can't be frozen"):
        run(FLOW_RECIPE, images, tmp_path)
    with pytest.raises(RecipeError, match="can't be frozen"):
        export(network, FLOW_RECIPE, pixels)
    for wrong in ({"annealing": "kl"}, {"free_bits": 0.1}, {"network": "context"}):
        with pytest.raises(RecipeError):
            Recipe(**{**vars(FLOW_RECIPE), **wrong})


def test_checkpoints_from_before_flows_stay_good() -> None:
    plain = Recipe("plain", (5, 4), "bernoulli", latents=2, hidden=(12,), latent_precision=8, epochs=1)
    assert plain.identity == repr(plain) and "encoder_hidden" not in plain.identity
    assert "'encoder_hidden': (30, 20), 'posterior': 'flow'" in FLOW_RECIPE.identity


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["gaps", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_command_goes_on_where_it_stopped(model_folder: Path, binary_model: Model, tmp_path: Path) -> None:
    data, training, output = tmp_path / "data.npy", tmp_path / "training.npy", tmp_path / "gaps.json"
    np.save(data, 255 * random_images(binary_model, 6))
    np.save(training, random_images(binary_model, 20, seed=1))
    options = ["-n", 5, "--importance-samples", 20, "--temperatures", 3, "--steps", "1", "--batch", 2,
               "--fitting-steps", 5, "--training-data", training, "--fit-steps", 2, "-o", output]  # fmt: skip
    status, said = invoke(model_folder, data, *options)
    assert status == 0, said
    for expected in ("L[q], amortized", "amortized, K = 1", "optimal flow", "amortization gap", "Verdict: "):
        assert expected in said
    for expected in ("fitted half-asleep: saves", "three times as wide: saves", "On training images the encoder is"):
        assert expected in said
    whole = json.loads(output.read_text())
    assert len(whole["measured"]["images"]["optima"]["optimal Gaussian"]["nats"]) == 5

    stopped = json.loads(output.read_text())
    parts = [stopped["measured"]["fitted_encoders"]["encoders"], *stopped["measured"]["images"].values()]
    for estimate in (estimate for part in parts for estimate in part.values()):
        estimate.update(nats=estimate["nats"][:2], error=estimate["error"][:2])
    del stopped["measured"]["training_images"]
    output.write_text(json.dumps(stopped))
    status, again = invoke(model_folder, data, *options)
    assert (status, again) == (0, said)
    assert json.loads(output.read_text())["measured"] == whole["measured"]

    status, said = invoke(model_folder, data, *options, "--seed", 1)
    assert status == 1 and "another analysis" in said
    output.write_text("{}")
    status, said = invoke(model_folder, data, *options)
    assert status == 1 and "holds no analysis" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "x.png"], "two latents|2 latents"),
        (["--posterior", "other"], "no posterior 'other'"),
        (["-o", "nowhere/x.json"], "not a folder"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(
    options: list[str], message: str, model_folder: Path, binary_model: Model, tmp_path: Path
) -> None:
    np.save(tmp_path / "data.npy", random_images(binary_model, 4))
    status, said = invoke(model_folder, tmp_path / "data.npy", *options)
    assert status == 1 and any(part in said for part in message.split("|")), said


def test_images_that_are_not_the_models_are_refused(model_folder: Path, tmp_path: Path) -> None:
    for wrong in (np.zeros((4, 9, 9), np.uint8), np.full((4, 5, 4), 7, np.uint8), np.zeros((1, 5, 4), np.uint8)):
        np.save(tmp_path / "data.npy", wrong)
        status, said = invoke(model_folder, tmp_path / "data.npy")
        assert status == 1 and "takes two or more images of shape (5, 4)" in said


def test_two_latents_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    recipe = Recipe("two", (5, 4), "bernoulli", latents=2, hidden=(9,), latent_precision=8, epochs=1, seed=7)
    images = squares(30)
    pixels = torch.from_numpy(images.reshape(30, -1) / 255).float()
    save_model(export(build(recipe), recipe, pixels), tmp_path / "model.safetensors")
    np.save(tmp_path / "data.npy", images)
    status, said = invoke(tmp_path, tmp_path / "data.npy", "-n", 6, "--importance-samples", 20, "--temperatures", 3,
                          "--steps", "1", "--fitting-steps", 5, "--plot", tmp_path / "latents.png")  # fmt: skip
    assert status == 0, said
    assert (tmp_path / "latents.png").read_bytes().startswith(b"\x89PNG")


def test_amortization_is_measured_alone(binary_model: Model) -> None:
    from bbans.analysis.run import Analysis

    x = random_images(binary_model, 4).reshape(4, -1)
    effort = Effort(gaussian=Fitting(steps=50, rounds=1))
    measured = Analysis.of(binary_model, effort=effort).measure_amortization(x)
    gap = measured.gaps("amortized")
    assert list(gap) == [AMORTIZATION] and float(gap[AMORTIZATION].min()) > -0.5


def test_the_verdict_names_what_was_measured() -> None:
    """The least that saves almost as much as the most; nothing, where nothing is to be won."""
    noise = Generator().manual_seed(0)
    best = -100 + torch.randn(50, generator=noise)

    def estimates(**away: float) -> dict[str, Estimate]:
        return {
            name: Estimate(best - nats + 0.01 * torch.randn(50, generator=noise), torch.zeros(50))
            for name, nats in away.items()
        }

    optima = estimates(gaussian=0.0, flow=-0.1, importance=-0.3, annealed=-0.4)
    optima = dict(zip((GAUSSIAN, FLOW, IMPORTANCE, ANNEALED), optima.values(), strict=True))
    units = Units(784, 105.0)

    def concluded(**away: float) -> str:
        encoders = {name.replace("_", " "): estimate for name, estimate in estimates(**away).items()}
        named = {f"own, K = {name[1:]}" if name.startswith("K") else name: one for name, one in encoders.items()}
        return verdict(Measured(named, optima), "own", (1, 5, 10), units)[-1]

    assert concluded(own=0.1, K1=0.05) == "Verdict: nothing: what is to be won is less than 0.5% of the file."
    assert "--steps 5, which refines the posterior: 5.7" in concluded(own=4.0, K1=2.0, K5=0.03, K10=0.0)
    assert concluded(own=4.0, K5=0.0, asleep=2.0).endswith("Or --posterior asleep: 1.90%.")
    assert "train a larger encoder" in concluded(own=4.0, fitted_further=3.0, three_times_as_wide=1.0, K1=3.9)
    assert "train the encoder for longer" in concluded(own=4.0, fitted_further=1.0, three_times_as_wide=1.0)
    assert concluded(own=4.0, K1=4.0).startswith("Verdict: a better encoder; nothing")
