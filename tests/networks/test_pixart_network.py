"""PixArt's transformer as a network of our own: its start, its call, its text, its file."""

import pytest
import torch

from simdistill.method.denoisers import Preconditioned
from simdistill.method.preconditioning import EDMScaling
from simdistill.method.text import Text, TextInput
from simdistill.networks.pixart import PixArt
from simdistill.teachers.weights import read_network, write_network

diffusers = pytest.importorskip("diffusers")

RNG = torch.Generator().manual_seed(0)
TEXT = Text(
    torch.randn(3, 5, 6, generator=RNG), torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]).bool()
)
X, SIGMA = torch.randn(3, 2, 8, 8, generator=RNG), torch.tensor([0.1, 1.0, 20.0])


def network():
    torch.manual_seed(1)
    return PixArt((2, 8, 8), patch=4, width=64, depth=2, tokens=5, text_width=6)


def trained():
    """With an output that is not zero."""
    net = network()
    torch.nn.init.normal_(net.transformer.proj_out.weight, std=0.1, generator=torch.Generator().manual_seed(2))
    return net.eval()


def test_it_starts_as_the_best_linear_denoiser():
    denoiser = Preconditioned(network(), (2, 8, 8), scaling=EDMScaling(0.7), mean=0.3)
    c_skip = (0.49 / (SIGMA**2 + 0.49)).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(denoiser(X, SIGMA, TEXT), 0.3 + c_skip * (X - 0.3))


def test_it_is_diffusers_own_class():
    """Its state dict fits a model that is built here from the configuration alone, which then gives the same."""
    net, times = trained(), torch.tensor([-0.5, 0.0, 0.7])
    model = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=32, in_channels=2, out_channels=2, num_layers=2,
        cross_attention_dim=64, sample_size=8, patch_size=4, caption_channels=6, use_additional_conditions=False,
    ).eval()  # fmt: skip
    model.load_state_dict(net.transformer.state_dict())
    known = {"resolution": None, "aspect_ratio": None}
    expected = model(
        X, TEXT.prompt_embeds, 100 * times, known, encoder_attention_mask=TEXT.attention_mask.float(), return_dict=False
    )[0]
    assert expected.std() > 0.01
    torch.testing.assert_close(net(X, times, TEXT), expected)


def test_only_the_prompts_own_tokens_are_seen():
    net, times = trained(), torch.zeros(3)
    filled = torch.where(TEXT.attention_mask[..., None], TEXT.prompt_embeds, torch.full_like(TEXT.prompt_embeds, 7.0))
    torch.testing.assert_close(net(X, times, Text(filled, TEXT.attention_mask)), net(X, times, TEXT))
    changed = Text(
        torch.where(TEXT.attention_mask[..., None], -TEXT.prompt_embeds, TEXT.prompt_embeds), TEXT.attention_mask
    )
    assert (net(X, times, changed) - net(X, times, TEXT)).abs().flatten(1).amax(1).min() > 1e-3


def test_a_file_has_it_whole(tmp_path):
    denoiser = Preconditioned(trained(), (2, 8, 8), scaling=EDMScaling(0.7), mean=0.3)
    write_network(tmp_path / "net.safetensors", denoiser, encoder="minilm")
    read, facts = read_network(tmp_path / "net.safetensors")
    assert (read.text, facts) == (TextInput(5, 6), {"encoder": "minilm"})
    assert torch.equal(read(X, SIGMA, TEXT), denoiser(X, SIGMA, TEXT))


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"shape = \(3, 10, 10\): must be .*square.* patch = 4"):
        PixArt((3, 10, 10), 4, 64, 1, 5, 6)
    with pytest.raises(ValueError, match=r"width = 48: must be a multiple of 32"):
        PixArt((3, 8, 8), 4, 48, 1, 5, 6)
    with pytest.raises(ValueError, match=r"condition = None: must be encoded prompts"):
        Preconditioned(network(), (2, 8, 8))(X, SIGMA)
