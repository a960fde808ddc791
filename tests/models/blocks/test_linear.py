import pytest
import torch
import torch.nn.functional as F

from models.blocks.linear import LEAST_ROWS, Linear, linear
from models.text2semantic.projections import FloatProjection, build_projection

pytestmark = pytest.mark.processor


@pytest.mark.parametrize("rows", [(1,), (LEAST_ROWS,), (3, 37)])
def test_values_and_gradients_are_those_of_torch(rows):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(*rows, 48), torch.randn(33, 48), torch.randn(33)
    upstream = torch.randn(*rows, 33)
    found = []
    for function in (linear, F.linear):
        leaves = [t.clone().requires_grad_(True) for t in (x, weight, bias)]
        y = function(*leaves)
        y.backward(upstream)
        found.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_frozen_weights_get_no_gradient():
    layer = Linear(8, 4).requires_grad_(False)
    x = torch.randn(2 * LEAST_ROWS, 8, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand_as(x))
    assert layer.weight.grad is None


def test_autocast_is_obeyed():
    layer = Linear(8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2 * LEAST_ROWS, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("outputs", [7, 128, 1025])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_a_projection_gives_the_numbers_of_the_layer(outputs, rows):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, 24), torch.randn(outputs, 24), torch.randn(outputs)
    projection = FloatProjection(weight, bias)
    torch.testing.assert_close(projection(x), F.linear(x, weight, bias), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(build_projection("f32", weight, None)(x), F.linear(x, weight), atol=1e-5, rtol=1e-5)
