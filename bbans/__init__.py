"""Lossless compression of image collections by bits-back coding with a variational autoencoder.

>>> import bbans
>>> images = bbans.sample_images(bbans.load_model("gg-mnist-binary"), 10)
>>> data = bbans.compress(images)
>>> bool((bbans.decompress(data) == images).all())
True
>>> with bbans.open(data) as compressed:
...     compressed.shape, compressed[3:5].shape
((10, 28, 28), (2, 28, 28))

Names are imported when they are first used, so that ``bbans --help`` doesn't wait for NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbans.api import choose_model, compress, decompress
    from bbans.api import open_array as open
    from bbans.bitcost import bits_of_pixels
    from bbans.codec import Codec
    from bbans.collection_reader import Collection
    from bbans.errors import (
        ArrayError,
        BbansError,
        BenchmarkError,
        CoreError,
        FormatError,
        LimitError,
        ModelError,
        RecipeError,
        StoredWarning,
    )
    from bbans.folders import compress_files, open_collection
    from bbans.model import Model, find_model, load_model, shipped_models
    from bbans.reader import CompressedArray
    from bbans.sampling import sample_images
    from bbans.writer import Writer

__version__ = "0.1.0"

__all__ = [
    "ArrayError",
    "BbansError",
    "BenchmarkError",
    "Codec",
    "Collection",
    "CompressedArray",
    "CoreError",
    "FormatError",
    "LimitError",
    "Model",
    "ModelError",
    "RecipeError",
    "StoredWarning",
    "Writer",
    "bits_of_pixels",
    "choose_model",
    "compress",
    "compress_files",
    "decompress",
    "find_model",
    "load_model",
    "open",
    "open_collection",
    "sample_images",
    "shipped_models",
]

_HOMES = {
    "bbans.api": ("choose_model", "compress", "decompress"),
    "bbans.bitcost": ("bits_of_pixels",),
    "bbans.codec": ("Codec",),
    "bbans.collection_reader": ("Collection",),
    "bbans.errors": (
        "ArrayError",
        "BbansError",
        "BenchmarkError",
        "CoreError",
        "FormatError",
        "LimitError",
        "ModelError",
        "RecipeError",
        "StoredWarning",
    ),
    "bbans.folders": ("compress_files", "open_collection"),
    "bbans.model": ("Model", "find_model", "load_model", "shipped_models"),
    "bbans.reader": ("CompressedArray",),
    "bbans.sampling": ("sample_images",),
    "bbans.writer": ("Writer",),
}


def __getattr__(name: str) -> Any:
    if name == "open":
        return import_module("bbans.api").open_array
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'bbans' has no attribute {name!r}")
