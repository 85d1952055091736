"""Where q(z given x) comes from.

- :mod:`bbans.inference.amortized`: one of the model's encoders.
- :mod:`bbans.inference.refined`: K steps up the ELBO of each image, on top of one;
  :mod:`bbans.inference.antithetic`: the same for decoders whose pixels depend on those before them.
- :mod:`bbans.inference.landscapes`: the decoders that are climbed.
"""
