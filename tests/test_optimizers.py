import torch
from torch import nn

from iic.classifiers.optimizers import FilterMuon, whitening_filters


def test_whitened_responses_are_uncorrelated():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator)
    patches = torch.randn(50_000, 12, generator=generator) @ mixing
    responses = patches @ whitening_filters(patches, eps=0.0).T[:, :12]
    torch.testing.assert_close(responses.T @ responses / len(responses), torch.eye(12), atol=1e-3, rtol=0)


def test_step_is_nearly_orthogonal_and_reaches_the_filter():
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(8, 4, 3, 3))
    muon = FilterMuon([filters], lr=0.5, momentum=0.6)
    filters.grad = torch.randn(8, 4, 3, 3)
    before = (filters * 8**0.5 / filters.norm()).detach()
    muon.step()
    step = (before - filters.detach()).view(8, -1) / 0.5
    singular = torch.linalg.svdvals(step)
    assert singular.min() > 0.5 and singular.max() < 1.5  # Newton-Schulz stops near, not at, 1
    assert (step * filters.grad.view(8, -1)).sum() > 0  # downhill
