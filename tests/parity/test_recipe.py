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
