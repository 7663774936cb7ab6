import pytest
import torch
from jaxtyping import TypeCheckError

from simdistill.method.shapes import dot, like

SHAPES = [(), (3,), (5,), (2, 3), (3, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_like_scales_sample_i_by_entry_i_also_where_the_last_axis_is_as_long_as_the_batch(shape, rng):
    factors, data = torch.tensor([2.0, 3.0, 5.0]), torch.randn(3, *shape, generator=rng)
    scaled = like(factors, data) * data
    assert scaled.shape == data.shape
    torch.testing.assert_close(scaled, torch.stack([2 * data[0], 3 * data[1], 5 * data[2]]), rtol=0, atol=0)


def test_dot_is_one_inner_product_a_sample(rng):
    a, b = torch.randn(2, 4, 2, 3, 4, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(dot(a, b), torch.einsum("nijk,nijk->n", a, b))
    assert dot(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -4.0]])).tolist() == [-5.0]


def test_a_shape_that_would_silently_broadcast_is_refused_by_the_checker():
    with pytest.raises(TypeCheckError, match="shape"):
        dot(torch.ones(4, 3), torch.ones(4, 1))
