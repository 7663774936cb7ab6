"""What a training logs, and a home for the services that is cut off from any network."""

from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

CONFIG = {"verb": "distill", "teacher": "digits", "batch": 64, "betas": [0.0, 0.999]}

METRICS = {"iteration": 50, "seconds": 1.5, "online_loss": 0.25, "levels": {"y_norm": {"0.0316": 1.5, "1": 2.0}}}

MILESTONE = {
    "iteration": 100,
    "seconds": 9.0,
    "quality": {"frechet": {"mean": 0.5, "std": 0.125, "seeds": 2, "values": [0.375, 0.625]}, "features": "digits"},
}

FLAT_METRICS = {"seconds": 1.5, "online_loss": 0.25, "levels/y_norm/0.0316": 1.5, "levels/y_norm/1": 2.0}

FLAT_MILESTONE = {
    "seconds": 9.0,
    "quality/frechet/mean": 0.5,
    "quality/frechet/std": 0.125,
    "quality/frechet/seeds": 2,
}


@contextmanager
def offline_in(home):
    """W&B and trackio read these once, trackio when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_PROJECT", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "HF_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_X_DISABLE_STATS", "true")
        patch.setenv("TRACKIO_DIR", str(home / "trackio"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield home


def picture_of(run):
    """A picture of which every pixel differs, and its file."""
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
    path = run.picture("00000100")
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    return pixels, path
