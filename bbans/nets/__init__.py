"""Trainable networks (torch): what is learned before it is frozen into integers.

Nothing here is used for coding: :mod:`bbans.portable.freeze` turns a trained network into the integer
network that is.
"""

from bbans.nets.gaussian import DiagonalGaussian
from bbans.nets.likelihoods import Bernoulli, DiscretizedLogistic, Likelihood, likelihood_named
from bbans.nets.vae import VAE, multilayer_perceptron

__all__ = [
    "VAE",
    "Bernoulli",
    "DiagonalGaussian",
    "DiscretizedLogistic",
    "Likelihood",
    "likelihood_named",
    "multilayer_perceptron",
]
