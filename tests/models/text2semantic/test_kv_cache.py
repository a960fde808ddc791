import pytest
import torch
import torch.nn.functional as F

from models.text2semantic.kv_cache import CAPACITY_STEP, VALUE_STEP, DenseMemory, WeightedSumMemory

pytestmark = pytest.mark.processor

ROWS, HEADS, WIDTH, PREFILL = 3, 2, 8, 5


def padding() -> torch.Tensor:
    bias = torch.zeros(ROWS, PREFILL)
    bias[1, :3] = -torch.inf
    return bias


def memories(bias):
    dense, light = DenseMemory(PREFILL, bias), WeightedSumMemory(PREFILL, bias, torch.float16)
    return [dense, WeightedSumMemory(PREFILL, bias, torch.float32), light]


def run(memory, tokens, kept=None):
    """What two layers attend to at every token, some rows leaving after the third."""
    torch.manual_seed(0)
    for _ in range(2):
        memory.add_layer(*torch.randn(2, ROWS, HEADS, PREFILL, WIDTH))
    found, rows = [], torch.arange(ROWS)
    for token in range(tokens):
        if token == 3 and kept is not None:
            memory.keep(kept)
            rows = kept
        memory.open_column()
        qkv = torch.randn(2, ROWS, 3 * HEADS * WIDTH)[:, rows]
        found.append(torch.stack([memory.attend(layer, qkv[layer].contiguous()) for layer in range(2)]))
    return found


@pytest.mark.parametrize("bias", [None, padding()], ids=["full", "padded"])
@pytest.mark.parametrize("kept", [None, torch.tensor([1, 2])], ids=["all", "two"])
def test_every_kind_of_memory_attends_to_the_same(bias, kept):
    dense, ours, light = (run(memory, 6, kept) for memory in memories(bias))
    for expected, exact, rough in zip(dense, ours, light, strict=True):
        torch.testing.assert_close(exact, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(rough, expected, atol=5e-3, rtol=0)


def test_a_memory_grows_with_its_tokens():
    tokens = max(CAPACITY_STEP, VALUE_STEP) + 3
    dense, ours, _ = (run(memory, tokens) for memory in memories(None))
    torch.testing.assert_close(ours[-1], dense[-1], atol=1e-5, rtol=0)


def test_a_token_attends_to_itself_and_to_all_before_it():
    torch.manual_seed(1)
    memory = WeightedSumMemory(PREFILL, None, torch.float32)
    keys, values = torch.randn(2, 1, HEADS, PREFILL, WIDTH)
    memory.add_layer(keys, values)
    memory.open_column()
    qkv = torch.randn(1, 3 * HEADS * WIDTH)
    query, key, value = qkv.view(1, 3, HEADS, 1, WIDTH).unbind(1)
    expected = F.scaled_dot_product_attention(query, torch.cat([keys, key], 2), torch.cat([values, value], 2))
    torch.testing.assert_close(memory.attend(0, qkv), expected.flatten(1), atol=1e-5, rtol=0)
