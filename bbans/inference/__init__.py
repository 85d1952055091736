"""Where q(z given x) comes from.

- :mod:`bbans.inference.amortized`: one of the model's encoders.
"""
