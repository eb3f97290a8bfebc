import pytest
import torch
from torch import nn

from iic.classifiers import muon
from iic.classifiers.muon import FilterMuon
from iic.classifiers.optimizers import whitening_filters


def test_whitened_responses_are_uncorrelated():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator)
    patches = torch.randn(50_000, 12, generator=generator) @ mixing
    responses = patches @ whitening_filters(patches, eps=0.0).T[:, :12]
    torch.testing.assert_close(responses.T @ responses / len(responses), torch.eye(12), atol=1e-3, rtol=0)


def test_step_is_nearly_orthogonal_and_reaches_the_filter():
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(8, 4, 3, 3))
    optimizer = FilterMuon([filters], lr=0.5, momentum=0.6)
    filters.grad = torch.randn(8, 4, 3, 3)
    before = (filters * 8**0.5 / filters.norm()).detach()
    optimizer.step()
    step = (before - filters.detach()).view(8, -1) / 0.5
    singular = torch.linalg.svdvals(step)
    assert singular.min() > 0.5 and singular.max() < 1.5  # Newton-Schulz stops near, not at, 1
    assert (step * filters.grad.view(8, -1)).sum() > 0  # downhill


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (64, 2, 3, 3)])  # more inputs than outputs, and fewer
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.0), (torch.float32, 0.03)])
def test_steps_are_those_of_torchs_muon(monkeypatch, shape, dtype, tolerance):
    monkeypatch.setattr(muon, "_fast_dtype", lambda device: dtype)
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(shape))
    flat = nn.Parameter(filters.detach().clone().view(len(filters), -1))
    ours = FilterMuon([filters], lr=0.1, momentum=0.6)
    torchs = torch.optim.Muon([flat], lr=0.1, momentum=0.6, nesterov=True, weight_decay=0.0)
    for _ in range(3):
        filters.grad = torch.randn(shape)
        flat.grad = filters.grad.view_as(flat).clone()
        with torch.no_grad():
            flat.mul_(len(flat) ** 0.5 / flat.norm())
        scaled = flat.detach().clone()
        ours.step()
        torchs.step()
        error = (filters.view_as(flat) - flat).norm() / (flat - scaled).norm()
        assert error <= tolerance
        with torch.no_grad():  # rounding must not add up over the steps
            filters.copy_(flat.view_as(filters))
