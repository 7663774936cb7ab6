"""The layers that map an embedding to a score, in LAION's aesthetic predictor and ImageReward."""

from jaxtyping import Float
from torch import Tensor, nn

from simdistill.method.shapes import PerSample


class ScoreHead(nn.Module):
    """Five linear layers without activations, from `width` features via 1024, 128, 64 and 16 to one.

    State-dict names are the published ones, layers.0, .2, .4, .6 and .7: the gaps were dropouts during training, which
    do nothing here (Schuhmann 2022; Xu et al. 2023).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Identity(),
            nn.Linear(1024, 128),
            nn.Identity(),
            nn.Linear(128, 64),
            nn.Identity(),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, embeddings: Float[Tensor, "batch width"]) -> PerSample:
        """One score per row."""
        return self.layers(embeddings)[:, 0]
