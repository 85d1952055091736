"""Networks and functions that give the same numbers on every machine.

Floating-point networks differ between batch sizes, thread counts, instruction sets and devices, and one
changed frequency breaks a file. The networks here are integers, evaluated as matrix products whose sums stay
below 2**53, and so are exact in every order of summation, with or without fused multiply-add:
:mod:`bbans.portable.network` proves that for each layer when a network is made or loaded.

- :mod:`bbans.portable.network`: the integer network, and the proof.
- :mod:`bbans.portable.engine`: the contract of what evaluates it; :mod:`bbans.portable.numpy_engine` and
  :mod:`bbans.portable.torch_engine` (CPU and CUDA) keep it, and :mod:`bbans.portable.engines` finds them by name.
- :mod:`bbans.portable.torch_device`, :mod:`bbans.portable.torch_product` and :mod:`bbans.portable.torch_maps`: where
  torch computes, exact products there, and networks over maps that stay there.
- :mod:`bbans.portable.freeze`: from a trained torch network to an integer one.
- :mod:`bbans.portable.elementary`: exp, the normal distribution and the logistic function, for tables.
"""
