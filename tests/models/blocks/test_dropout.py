import pytest
import torch

from models.blocks.dropout import Dropout, drop_attention, dropout, keep_mask, kept_scale


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_share_and_the_mean_are_those_asked_for(p):
    torch.manual_seed(0)
    x = torch.ones(1000, 1000)
    dropped = dropout(x, p, training=True)
    assert (dropped == 0).float().mean() == pytest.approx(p, abs=2e-3)
    assert dropped.mean() == pytest.approx(1, abs=4e-3)
    assert dropped.unique().numel() == 2


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    mask = keep_mask(torch.Size([2_000_001]), 0.3).float()
    assert len(mask) == 2_000_001
    for lag in (1, 2, 3, 4, 5, 8):
        pairs = ((1 - mask[:-lag]) * (1 - mask[lag:])).mean()
        assert pairs == pytest.approx(0.09, abs=2e-3), lag


def test_the_gradient_passes_where_the_value_passed():
    torch.manual_seed(0)
    x = torch.randn(50, 60, requires_grad=True)
    y = dropout(x, 0.2, training=True)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0)
    torch.testing.assert_close(x.grad[y != 0], torch.full_like(x.grad[y != 0], kept_scale(0.2)))


def test_nothing_is_dropped_in_eval_mode():
    x = torch.randn(5, 6)
    assert Dropout(0.5).eval()(x) is x


def test_the_same_seed_drops_the_same():
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        results.append(dropout(torch.ones(100), 0.5, training=True))
    assert torch.equal(*results)


def plain_attention(q, k, v, mask, kept, p):
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf).softmax(-1)
    return (weights * kept * kept_scale(p)) @ v


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_dropped_attention_and_its_gradients_are_those_of_the_formula(p, monkeypatch):
    monkeypatch.setattr("models.blocks.dropout.CACHE_BYTES", 4 * 7 * 7 * 2)  # two heads at a time
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 3, 7, 4, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()
    torch.manual_seed(8)
    ours = drop_attention(q, k, v, mask, p)
    torch.manual_seed(8)
    chunks = [keep_mask(torch.Size([heads, 7, 7]), p) for _ in range(2) for heads in (2, 1)]
    kept = torch.stack([torch.cat(chunks[:2]), torch.cat(chunks[2:])])
    theirs = plain_attention(q, k, v, mask, kept, p)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    target = torch.randn(2, 3, 7, 4)
    for ours_grad, theirs_grad in zip(
        torch.autograd.grad((ours * target).sum(), (q, k, v)),
        torch.autograd.grad((theirs * target).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(ours_grad, theirs_grad, atol=1e-5, rtol=0)


def test_attention_is_computed_in_float32_inside_autocast_too():
    torch.manual_seed(2)
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    plain = drop_attention(q, k, v, mask, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = drop_attention(q, k, v, mask, 0.0)
        inside.sum().backward()
    assert torch.equal(inside, plain)
    halved = drop_attention(*(x.to(torch.bfloat16) for x in (q, k, v)), mask, 0.0)
    assert halved.dtype == torch.bfloat16
