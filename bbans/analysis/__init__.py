"""What inference costs: the gaps between log p(x) and what a file pays, image by image.

- :mod:`bbans.training.thaw`: a frozen model as networks that have gradients.
- :mod:`bbans.analysis.posteriors`: what is fitted to one image alone, a Gaussian or a flow.
- :mod:`bbans.analysis.estimates`: ELBOs, importance-weighted bounds, annealed importance sampling.
- :mod:`bbans.analysis.gaps`: all of these for batches of images, averages, and the gaps between them.
- :mod:`bbans.analysis.encoders`: encoders fitted to a frozen decoder, to see what a better one would save.
- :mod:`bbans.analysis.verdict`: what to do about it, in words.
- :mod:`bbans.analysis.picture`: posteriors over two latents, drawn.

It needs the training side, and coding needs none of it. Ids as IS-2 and GG-8 are those of ``docs/gaps.md``.
"""
