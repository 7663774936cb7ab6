"""The U-Net on patches of pixels, which reduces its resolution and cost."""

from typing import Any

from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from simdistill.method.shapes import Sigma
from simdistill.networks.unet import Image, Labels, SongUNet
from simdistill.support.checks import require


class PatchedUNet(nn.Module):
    """`SongUNet` on images whose patches of `patch`×`patch` pixels become the channels of one pixel (Shi et al. 2016).

    `arguments` are those of the `SongUNet`, for the lower resolution and the larger number of channels. Raises
    `ValueError` for a patch below 1 and as `SongUNet` does.
    """

    def __init__(self, patch: int, **arguments: Any) -> None:
        super().__init__()
        require(patch >= 1, "patch", patch, "at least 1")
        self.patch, self.unet = patch, SongUNet(**arguments)
        self.arguments: dict[str, Any] = {"patch": patch, **self.unet.arguments}

    def forward(self, x: Image, noise_labels: Sigma, class_labels: Labels = None) -> Image:
        """F, the shape of `x`, for c_noise `[batch]` and one-hot `class_labels`."""
        return pixel_shuffle(self.unet(pixel_unshuffle(x, self.patch), noise_labels, class_labels), self.patch)
