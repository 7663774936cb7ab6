"""The U-Net on squares of pixels, and networks that take the data's mean off first."""

import pytest
import torch

from simdistill.method.denoisers import Preconditioned, residual
from simdistill.method.preconditioning import EDMScaling
from simdistill.networks.patched import PatchedUNet
from simdistill.networks.unet import SongUNet
from simdistill.teachers.weights import read_network, write_network

ARGUMENTS = {"label_dim": 3, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}


def filled(net):
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def test_squares_of_pixels_become_channels_and_pixels_again(rng):
    torch.manual_seed(0)
    net = filled(PatchedUNet(2, img_resolution=4, in_channels=8, out_channels=8, **ARGUMENTS))
    x, noise, labels = torch.randn(3, 2, 8, 8, generator=rng), torch.tensor([-1.0, 0.0, 1.0]), torch.eye(3)
    # channel 4 c + 2 dy + dx of the small picture is pixel (2 y + dy, 2 x + dx) of channel c
    small = x.reshape(3, 2, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(3, 8, 4, 4)
    inner = net.unet(small, noise, labels)
    large = inner.reshape(3, 2, 2, 2, 4, 4).permute(0, 1, 4, 2, 5, 3).reshape(3, 2, 8, 8)
    assert torch.equal(net(x, noise, labels), large)
    assert not torch.equal(large, x)


def test_a_patch_of_one_pixel_changes_nothing(rng):
    torch.manual_seed(0)
    net = filled(PatchedUNet(1, img_resolution=8, in_channels=1, out_channels=1, **ARGUMENTS))
    assert isinstance(net.unet, SongUNet)
    x, noise = torch.randn(2, 1, 8, 8, generator=rng), torch.tensor([0.0, 1.0])
    assert torch.equal(net(x, noise), net.unet(x, noise))
    with pytest.raises(ValueError, match="patch = 0: must be at least 1"):
        PatchedUNet(0, img_resolution=8, in_channels=1, out_channels=1)


class Linear(torch.nn.Module):
    """F(x) = a x for every noise level."""

    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, x, noise_labels, class_labels=None):
        return self.a * x


@pytest.mark.parametrize("sigma", [1e-4, 0.3, 2.0, 80.0])
def test_the_mean_is_taken_off_before_the_network(sigma):
    """With F = 0 the denoiser is the exact one of N(mean, sigma_data² I), and any other F sees x - mean only."""
    x, level = torch.linspace(-3, 3, 8).reshape(2, 1, 2, 2), torch.full((2,), sigma)
    exact = sigma**2 / (sigma**2 + 0.5**2) * (-0.7 - x.double())
    centred = Preconditioned(Linear(0.0), (1, 2, 2), scaling=EDMScaling(0.5), mean=-0.7)
    torch.testing.assert_close(residual(centred, x, level).double(), exact, rtol=2e-6, atol=0)
    plain, shifted = (
        Preconditioned(Linear(0.3), (1, 2, 2), scaling=EDMScaling(0.5), mean=mean) for mean in (0.0, -0.7)
    )
    torch.testing.assert_close(residual(shifted, x, level), residual(plain, x + 0.7, level))


def test_they_come_back_from_a_file(tmp_path, rng):
    torch.manual_seed(0)
    net = PatchedUNet(2, img_resolution=4, in_channels=4, out_channels=4, **ARGUMENTS)
    denoiser = Preconditioned(filled(net), (1, 8, 8), 3, scaling=EDMScaling(0.664), mean=-0.562).eval()
    write_network(tmp_path / "n.safetensors", denoiser)
    back, _ = read_network(tmp_path / "n.safetensors")
    x, sigma, labels = torch.randn(3, 1, 8, 8, generator=rng), torch.tensor([0.1, 1.0, 9.0]), torch.arange(3)
    assert (back.mean, back.scaling) == (-0.562, EDMScaling(0.664))
    assert torch.equal(back(x, sigma, labels), denoiser(x, sigma, labels))
