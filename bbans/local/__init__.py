"""Images of any height and width, coded with a model that has no latents: its network sees the pixels before each.

- :mod:`bbans.local.strips`: how images are cut, so that memory is bounded and cores have something each.
- :mod:`bbans.local.likelihood`: from a strip's pixels to their intervals, and back from a stack; in NumPy.
- :mod:`bbans.local.compiled`: the same in compiled code.
- :mod:`bbans.local.coder`: chunks of images to bytes and back.
"""
