"""What a local network may start from: another one, also of another number of channels, or a context network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbans.errors import RecipeError
from bbans.model import Model
from bbans.nets.context import ContextBlock, ContextVAE, of_kind
from bbans.nets.local import LocalNetwork
from bbans.portable.context import NEAR
from bbans.training.thaw import thaw, thaw_local


@torch.no_grad()
def start_from(network: LocalNetwork, model: Model) -> None:
    """Give a network the weights of a frozen model's.

    A network for colours makes one for grey, which sees each colour as grey and tells the first. Of a context network,
    the latents are taken as 0. Raises :class:`bbans.errors.RecipeError` if the model is of another kind or size.
    """
    try:
        if not model.any_size:
            given = thaw(model)[model.default_posterior]
            if not isinstance(given, ContextVAE):
                raise RecipeError(f"model {model.name} has no network with context to start from")
            source = LocalNetwork(given.channels, network.shape, network.likelihood)
            _take_context(source, given)
        else:
            source = thaw_local(model)
        if source.channels == network.channels:
            network.load_state_dict(source.state_dict())
        elif network.channels == 1:
            _take_grey(network, source)
        else:
            raise RecipeError(f"model {model.name} is for grey images, and colours can't start from it")
    except (RuntimeError, ValueError) as error:  # other sizes, or another number of layers
        raise RecipeError(f"the network of model {model.name} has other sizes than the one to start from it") from error


def _take_grey(network: LocalNetwork, source: LocalNetwork) -> None:
    """Of a network for colours, what tells the first one, seeing all of them as the same."""
    network.blocks.load_state_dict(source.blocks.state_dict())
    window = source.window.weight
    network.window.weight.copy_(torch.cat([window[:, :-1].sum(1, keepdim=True), window[:, -1:]], dim=1))
    _copy_bias(network.window, source.window)
    for to, given in ((network.heads[0], source.heads[0]), (network.outputs[0], source.outputs[0])):
        assert isinstance(to, nn.Linear) and isinstance(given, nn.Linear)
        near = len(NEAR) * source.channels
        seen = given.weight[:, -near:].reshape(-1, len(NEAR), source.channels).sum(2)
        to.weight.copy_(torch.cat([given.weight[:, :-near], seen], dim=1))
        _copy_bias(to, given)


def _take_context(network: LocalNetwork, source: ContextVAE) -> None:
    """Of a context network, what a local network has too."""
    decoder, channels = source.decoder, network.channels
    network.set_raw_window(decoder.window.weight)
    _copy_bias(network.window, decoder.window)
    z = torch.zeros(1, *source.latent_shape)
    features = decoder.features(z)[0].mean((1, 2))
    assert network.window.bias is not None
    network.window.bias += decoder.of_features.weight.flatten(1) @ features
    for own, block in zip(*(of_kind(ContextBlock, each.blocks) for each in (network, decoder)), strict=True):
        own.load_state_dict(block.state_dict())
    linear = of_kind(nn.Linear, network.heads), of_kind(nn.Linear, network.outputs)
    convolutions = of_kind(nn.Conv2d, decoder.heads), of_kind(nn.Conv2d, decoder.outputs)
    for channel, (head, output, old_head, old_output) in enumerate(zip(*linear, *convolutions, strict=True)):
        weight = old_head.weight.flatten(1)
        hidden, earlier = weight[:, : network.shape.hidden], weight[:, network.shape.hidden :]
        unseen = functional.pad(hidden, (0, len(NEAR) * channels))  # by that family's heads
        network.set_raw(head, channel, torch.cat([unseen, earlier], dim=1))
        network.set_raw(output, channel, old_output.weight.flatten(1))
        _copy_bias(head, old_head)
        _copy_bias(output, old_output)


def _copy_bias(to: nn.Linear | nn.Conv2d, given: nn.Linear | nn.Conv2d) -> None:
    bias: Tensor | None = given.bias
    assert to.bias is not None and bias is not None
    to.bias.copy_(bias)
