"""Portable elementary functions against Python's own."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from bbans.portable import elementary


def test_exponential() -> None:
    x = np.linspace(-700, 700, 20_001)
    expected = np.array([math.exp(value) for value in x.tolist()])
    np.testing.assert_allclose(elementary.exponential(x), expected, rtol=4e-16)


def test_logarithm() -> None:
    x = np.exp(np.concatenate([np.linspace(-600, 600, 10_001), np.linspace(-1, 1, 10_001)]))
    expected = np.array([math.log(value) for value in x.tolist()])
    np.testing.assert_allclose(elementary.logarithm(x), expected, rtol=4e-16, atol=2e-16)


def test_logistic() -> None:
    x = np.linspace(-30, 30, 2001)
    expected = np.array([1 / (1 + math.exp(-value)) for value in x.tolist()])
    np.testing.assert_allclose(elementary.logistic(x), expected, rtol=1e-15)


def test_normal_cdf() -> None:
    x = np.linspace(-9, 9, 10_001)
    expected = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x.tolist()])
    np.testing.assert_allclose(elementary.normal_cdf(x), expected, atol=2e-15)


def test_normal_quantile() -> None:
    probability = np.concatenate([[1e-8, 1e-5], np.arange(1, 4096) / 4096, [1 - 1e-5, 1 - 1e-8]])
    expected = np.array([NormalDist().inv_cdf(value) for value in probability.tolist()])
    np.testing.assert_allclose(elementary.normal_quantile(probability), expected, rtol=1e-7, atol=1e-12)
