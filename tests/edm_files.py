"""Small checkpoints with the layout of EDM's, pickled by stand-ins for the modules that theirs name."""

import pickle
import sys
from collections import OrderedDict
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from torch import nn

from simdistill.networks.block import Block
from simdistill.networks.layers import Conv, ConvThenHalve, FourierEmbedding, PositionalEmbedding, Resample

CLASSES = {
    **dict.fromkeys((Conv, ConvThenHalve, Resample), "Conv2d"),
    **{Block: "UNetBlock", nn.Linear: "Linear", nn.GroupNorm: "GroupNorm"},
    **{FourierEmbedding: "FourierEmbedding", PositionalEmbedding: "PositionalEmbedding"},
}


class EasyDict(dict):
    """A dict that pickles by a name of EDM's."""


def _reconstruct_persistent_obj(meta):
    raise AssertionError("to be named in a pickle, not to be called")


def scalar(dtype, content):
    raise AssertionError("to be named in a pickle, not to be called")


class Persistent:
    """An object that pickles as EDM's persistent classes do: by its source code, its class's name and its state."""

    def __init__(self, class_name, state, settings):
        self.state = state | {"_init_args": (), "_init_kwargs": dict(settings)}
        self.meta = {"type": "class", "version": 6, "module_src": "import no_such_module", "class_name": class_name}

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta | {"state": self.state},)


class OldFloat:
    """A number as NumPy pickled it before its version 2."""

    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        return scalar, (np.dtype("f8"), np.float64(self.value).tobytes())


def persistent(module, settings=None):
    """A network of this package, and all in it, as EDM's modules."""
    children = {
        name: child for name, child in module._modules.items() if not isinstance(child, nn.Identity | nn.Dropout)
    }
    if isinstance(module, nn.ModuleDict):
        same = nn.ModuleDict()
        same._modules = OrderedDict((name, persistent(child)) for name, child in children.items())
        return same
    state = nn.Module().__dict__ | {
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(module._buffers),
        "_modules": OrderedDict((name, child and persistent(child)) for name, child in children.items()),
        "skip_scale": np.sqrt(0.5),
    }
    given = {"init_mode": "xavier_uniform", "init_weight": np.float64(1e-5)} if settings is None else settings
    return Persistent(CLASSES.get(type(module), type(module).__name__), state, given)


def tree(network, settings, kind="EDMPrecond", own=None, buffers=None):
    """What EDM's training pickles for `network`, which was built with `settings`, under the preconditioning `kind`."""
    model = persistent(network, settings)
    state = nn.Module().__dict__ | {"_buffers": OrderedDict(buffers or {}), "_modules": OrderedDict(model=model)}
    repeated = {name: value for name, value in settings.items() if name not in ("in_channels", "out_channels")}
    wrapper = EasyDict(
        repeated, img_channels=settings["in_channels"], use_fp16=False, model_type=type(network).__name__
    )
    return {
        "ema": Persistent(kind, state, wrapper | (own or {})),
        "loss_fn": Persistent("EDMLoss", {"P_mean": -1.2, "P_std": 1.2, "sigma_data": 0.5}, {}),
        "augment_pipe": Persistent("AugmentPipe", {"p": 0.12, "xflip": 100000000.0}, {}),
        "dataset_kwargs": EasyDict(
            class_name="training.dataset.ImageFolderDataset", path="cifar10.zip", use_labels=True
        ),
    }


def dumps(content, protocol=4):
    """`content` as a pickle whose names are EDM's."""
    with _stand_ins():
        return pickle.dumps(content, protocol)


@contextmanager
def _stand_ins():
    named = {
        "torch_utils.persistence": _reconstruct_persistent_obj,
        "dnnlib.util": EasyDict,
        "numpy.core.multiarray": scalar,
    }
    packages = ("torch_utils", "dnnlib")
    before = {name: sys.modules.get(name) for name in (*packages, *named)}
    homes = {thing: thing.__module__ for thing in named.values()}
    sys.modules.update({name: ModuleType(name) for name in before})
    for name, thing in named.items():
        setattr(sys.modules[name], thing.__name__, thing)
        thing.__module__ = name
    try:
        yield
    finally:
        for thing, home in homes.items():
            thing.__module__ = home
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
