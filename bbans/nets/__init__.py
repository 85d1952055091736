"""Trainable networks (torch): what is learned before it is frozen into integers.

Nothing here is used for coding: :mod:`bbans.portable.freeze` turns a trained network into the integer
network that is.
"""

from bbans.nets.context import ContextShape, ContextVAE
from bbans.nets.flow import AuxiliaryFlow, FlowVAE
from bbans.nets.fully_connected import FullyConnectedVAE, multilayer_perceptron
from bbans.nets.gaussian import DiagonalGaussian
from bbans.nets.likelihoods import (
    Bernoulli,
    ChannelLinearLogistic,
    DiscretizedLogistic,
    Likelihood,
    LogisticMixture,
)
from bbans.nets.residual import ResidualShape, ResidualVAE
from bbans.nets.vae import VAE

__all__ = [
    "VAE",
    "AuxiliaryFlow",
    "Bernoulli",
    "ChannelLinearLogistic",
    "ContextShape",
    "ContextVAE",
    "DiagonalGaussian",
    "DiscretizedLogistic",
    "FlowVAE",
    "FullyConnectedVAE",
    "Likelihood",
    "LogisticMixture",
    "ResidualShape",
    "ResidualVAE",
    "multilayer_perceptron",
]
