"""Feature extractors that the metrics are given, among them the small digits classifier that the package ships."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from simdistill.data.digits import Labelled
from simdistill.shapes import Data


class DigitsClassifier(nn.Module):
    """A convolutional classifier of 8×8 digits; 32 standardised hidden activations are the features of the metrics.

    Batch normalisation without parameters gives each feature mean 0 and variance 1 on the training set, so that the
    Fréchet distance has a scale: shifting every feature by one standard deviation costs 32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.hidden, self.logits = nn.Linear(64 * 4 * 4, 32), nn.Linear(32, 10)
        self.standardise = nn.BatchNorm1d(32, affine=False)
        self.dropout = nn.Dropout(0.3)

    def features(self, images: Data) -> Float[Tensor, "batch 32"]:
        """The standardised hidden activations of `images` `[batch, 1, 8, 8]` in [-1, 1]."""
        h = silu(self.conv2(silu(self.conv1(images))))
        return self.standardise(self.hidden(self.dropout(h.flatten(1))))

    def forward(self, images: Data) -> Float[Tensor, "batch 10"]:
        """The class logits of `images` `[batch, 1, 8, 8]` in [-1, 1]."""
        return self.logits(self.dropout(silu(self.features(images))))


def train_digits_classifier(
    data: Labelled, iterations: int = 3000, batch: int = 128, seed: int = 0
) -> DigitsClassifier:
    """Fit a `DigitsClassifier` to `data` with one-pixel shifts as augmentation; returns it in eval mode."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = DigitsClassifier()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in range(iterations):
        k = torch.randint(len(data.images), (batch,), generator=rng)
        dy, dx = torch.randint(-1, 2, (2,), generator=rng).tolist()
        padded = nn.functional.pad(data.images[k], (1, 1, 1, 1), value=-1.0)
        shifted = padded[:, :, 1 + dy : 9 + dy, 1 + dx : 9 + dx]
        loss = nn.functional.cross_entropy(net(shifted), data.labels[k], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()
