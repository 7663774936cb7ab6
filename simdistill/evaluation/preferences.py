"""How well pictures match their prompts and please people: CLIP, and networks trained on human preferences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from simdistill.evaluation.clip import Clip, read_clip
from simdistill.evaluation.image_reward import read_image_reward
from simdistill.evaluation.open_clip import read_open_clip
from simdistill.method.shapes import PerSample, Pictures
from simdistill.networks.score_head import ScoreHead
from simdistill.support.checks import require
from simdistill.support.tensors import fill, fingerprint, read_state

# fmt: off
TITLES = {
    "clip":         "CLIP score",
    "aesthetic":    "aesthetic score",
    "pickscore":    "PickScore",
    "image_reward": "ImageReward",
    "hpsv2":        "HPSv2",
}
# fmt: on
"""The scores by name, in the order of their columns."""

SOURCES = {
    "clip": "the folder huggingface.co/openai/clip-vit-large-patch14",
    "aesthetic": "sac+logos+ava1-l14-linearMSE.pth of github.com/christophschuhmann/improved-aesthetic-predictor",
    "pickscore": "the folder huggingface.co/yuvalkirstain/PickScore_v1",
    "image_reward": "ImageReward.pt of huggingface.co/THUDM/ImageReward",
    "hpsv2": "HPS_v2.1_compressed.pt of huggingface.co/xswu/HPSv2",
}
"""Where the weights of each are published; docs/text-to-image.md has the details."""


@dataclass(frozen=True)
class Score:
    """One of `TITLES`; `weights` identifies the network's weights: values of equal `weights` can be compared."""

    name: str
    weights: str
    function: Callable[[Pictures, Sequence[str]], PerSample]

    @torch.no_grad()
    def __call__(self, pictures: Pictures, prompts: Sequence[str]) -> PerSample:
        """The score of each picture in [-1, 1], higher is better, on the CPU."""
        require(len(pictures) == len(prompts), "pictures", len(pictures), f"{len(prompts)}, one per prompt")
        return self.function(pictures, prompts).cpu()


def clip_score(network: Clip) -> Score:
    """100 max(cos(picture, prompt), 0), the scale of most tables; Hessel et al. (2021) use 2.5 instead of 100."""
    return Score("clip", network.name, lambda pictures, prompts: 100 * network.cosines(pictures, prompts).clamp(min=0))


def aesthetic_score(network: Clip, path: Path) -> Score:
    """LAION's aesthetic predictor (Schuhmann 2022) on the picture's embedding alone: predicted human ratings, 1 to 10.

    Raises `ValueError` unless `path` holds the predictor's layers, for embeddings as wide as those of `network`.
    """
    state = read_state(path)
    first = state.get("layers.0.weight")
    width = 0 if first is None else first.shape[-1]
    fits = first is None or width == network.width
    wanted = f"{width} for {path}; LAION's predictor is for CLIP ViT-L/14"
    require(fits, f"--clip = '{network.name}': dimension of the embeddings", network.width, wanted)
    head = fill(ScoreHead(width or network.width), state, path, "LAION's aesthetic predictor").to(network.device)
    weights = f"{path.stem}-{fingerprint([path])} on {network.name}"
    return Score("aesthetic", weights, lambda pictures, _: head(network.pictures(pictures)))


def pick_score(network: Clip) -> Score:
    """The network's learned scale times cos(picture, prompt) (Kirstain et al. 2023)."""
    scale = network.scale
    return Score("pickscore", network.name, lambda pictures, prompts: scale * network.cosines(pictures, prompts))


def hpsv2_score(network: Clip) -> Score:
    """100 cos(picture, prompt), as in HPSv2's tables (Wu et al. 2023); its library's `score` omits the 100."""
    return Score("hpsv2", network.name, lambda pictures, prompts: 100 * network.cosines(pictures, prompts))


def load_scores(
    clip: Path | None = None,
    aesthetic: Path | None = None,
    pickscore: Path | None = None,
    image_reward: Path | None = None,
    hpsv2: Path | None = None,
    device: torch.device | str = "cpu",
) -> list[Score]:
    """The scores whose weights are given; docs/text-to-image.md says where to get them.

    `clip` and `pickscore` are transformers' folders, the others files; `aesthetic` needs the embeddings of `clip`.
    Nothing is executed or downloaded. Raises `ValueError` with the remedy if none is given, or something is missing,
    damaged, or does not match.
    """
    folders = {"--clip": clip, "--pickscore": pickscore}
    files = {"--aesthetic": aesthetic, "--image-reward": image_reward, "--hpsv2": hpsv2}
    given = any(path is not None for path in (*folders.values(), *files.values()))
    if not given:
        sources = ", ".join(f"--{name.replace('_', '-')} ({where})" for name, where in SOURCES.items())
        raise ValueError(f"scores = 'none': must be at least one of {sources}, with its weights")
    for option, path in folders.items():
        require(path is None or path.is_dir(), option, str(path), "a folder of transformers' CLIPModel")
    for option, path in files.items():
        require(path is None or path.is_file(), option, str(path), "a file of weights")
    based = aesthetic is None or clip is not None
    require(based, "--aesthetic", str(aesthetic), "given with --clip, whose embeddings it uses")
    found: list[Score] = []
    if clip is not None:
        network = read_clip(clip, device)
        found += [clip_score(network)] + ([] if aesthetic is None else [aesthetic_score(network, aesthetic)])
    if pickscore is not None:
        found.append(pick_score(read_clip(pickscore, device)))
    if image_reward is not None:
        reward = read_image_reward(image_reward, device)
        found.append(Score("image_reward", reward.name, reward))
    if hpsv2 is not None:
        found.append(hpsv2_score(read_open_clip(hpsv2, device)))
    return found
