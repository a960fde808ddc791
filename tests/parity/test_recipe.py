"""The quick way to the recipe's numbers gives those of the recipe."""

import pytest
import torch


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (32_768,), (2, 32_769), (0, 4)])
def test_quick_values_are_those_of_the_recipe_bit_for_bit(recipe, shape):
    for name, seed in (("enc_p.proj.weight", 1234), ("input:x", 0)):
        quick, plain = recipe.value(name, shape, seed), recipe.plain_value(name, shape, seed)
        assert recipe.value is not recipe.plain_value
        assert (quick.dtype, quick.shape) == (plain.dtype, plain.shape)
        assert torch.equal(quick, plain)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("ssl_proj.weight", (3, 5, 2)), ("enc_q.proj.weight", (4, 6)), ("a.bias", (7,)), ("a.weight_g", (3, 1, 1)),
     ("quantizer.embed", (5, 4)), ("enc_p.text_embedding.weight", (9, 4)), ("prelu.weight", (1,))],
)  # fmt: skip
def test_weights_that_are_scaled_where_they_lie_are_those_of_the_recipe(recipe, name, shape):
    quick, plain = recipe.weight(name, torch.empty(shape), 1234), recipe.plain_weight(name, torch.empty(shape), 1234)
    assert type(quick) is torch.Tensor
    assert torch.equal(quick, plain)
    again = recipe.value(name, shape, 1234)
    assert type(2.0 * again) is torch.Tensor and not torch.equal(2.0 * again, again)
