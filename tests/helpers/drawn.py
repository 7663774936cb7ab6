"""Samples and matrices of random numbers."""

import torch


def normal(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def noise(*shape, seed=0):
    """Of any shape, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonal(d, seed=0):
    return torch.linalg.qr(normal(d, d, seed)).Q


def covariance(d, seed=0):
    factor = normal(d, d, seed)
    return factor @ factor.T + 0.1 * torch.eye(d, dtype=torch.float64)
