"""Attention by weights: against its formula, and against copies of keys."""

import pytest
import torch

from penstock.learner.models.transformer import Attention, Block, require_heads, waves


def test_attention_is_a_quotient_of_weighted_sums():
    torch.manual_seed(0)
    attention = Attention(6, 2)
    x, z, weights = torch.randn(1, 4, 6), torch.randn(1, 5, 6), torch.tensor([[0.5, 0, 2, 1, 0.1]])
    q, k, v = attention.queries(x)[0], attention.keys(z)[0], attention.values(z)[0]
    parts = []
    for head in (slice(0, 3), slice(3, 6)):
        terms = weights * torch.exp(q[:, head] @ k[:, head].T / 3**0.5)
        parts.append(terms @ v[:, head] / terms.sum(dim=1, keepdim=True))
    torch.testing.assert_close(attention(x, z, weights)[0], attention.out(torch.cat(parts, dim=1)))


def test_a_key_of_weight_2_is_two_keys():
    torch.manual_seed(0)
    block = Block(8, 2, 2, crosses=True)
    x, z = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    counts = torch.tensor([1, 2, 0, 3])
    copied = z.repeat_interleave(counts, dim=1)
    torch.testing.assert_close(block(x, z, counts.float().expand(2, 4)), block(x, copied))


def test_where_no_key_counts_values_are_finite():
    x = torch.randn(1, 3, 8)
    assert Block(8, 2, 2)(x, weights_BK=torch.zeros(1, 3)).isfinite().all()


def test_waves_are_sines_and_cosines_of_doubling_frequencies():
    found = waves(torch.tensor([[[0.25, 0.5]]]), 2)[0, 0]
    r = 0.5**0.5
    torch.testing.assert_close(found, torch.tensor([r, 1, 1, 0, r, 0, 0, -1]), rtol=0, atol=1e-6)


def test_heads_that_do_not_share_the_channels_are_refused():
    with pytest.raises(ValueError, match="upt: width must be a multiple of heads, and 10 is none of 4"):
        require_heads("upt", "width", 10, 4)
