"""Small checkpoints with EDM's layout, sound and spoilt, pickled by stand-ins for the modules that theirs name."""

import io
import pickle
import sys
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from simdistill.networks.block import Block
from simdistill.networks.layers import Conv, ConvThenHalve, FourierEmbedding, PositionalEmbedding, Resample
from simdistill.networks.unet import SongUNet
from simdistill.teachers.edm import read_edm

SONG = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 10,
    "augment_dim": 9,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
SMALL = SONG | {"img_resolution": 2, "model_channels": 4, "channel_mult": [1], "label_dim": 0, "augment_dim": 0}

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


def filled(network):
    """`network` with noise in all its parameters, in eval mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def small():
    """A fresh tree of the smallest network, whose tensors are always the same."""
    return tree(SMALLEST, SMALL)


SMALLEST = filled(SongUNet(**SMALL))


@contextmanager
def stored(content):
    """The path of a file with `content`, bytes or a tree."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.pkl")
        path.write_bytes(content if isinstance(content, bytes) else dumps(content))
        yield path


def load(content):
    """Reads what it is given, bytes or a tree, as a file."""
    with stored(content) as path:
        return read_edm(path)


def refused(content):
    """Reads what must not be read and returns what the one line says behind the file's name."""
    with stored(content) as path, pytest.raises(ValueError, match=": ") as caught:
        read_edm(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert len(said.splitlines()) == 1
    return said.removeprefix(f"{path}: ")


def state_of(content, *path):
    """The attributes of a module in a tree."""
    found = content["ema"].state
    for name in path:
        child = found["_modules"][name]
        found = child.state if isinstance(child, Persistent) else child.__dict__
    return found


def changed(change):
    """A sound tree after `change`."""
    content = small()
    change(content)
    return content


def weight(content, value):
    state_of(content, "model", "map_layer0")["_parameters"]["weight"] = value


class Claimed:
    """A tensor of any size, offset and stride over the storage of `numbers`."""

    def __init__(self, numbers, offset, size, stride):
        self.arguments = (numbers.storage() if isinstance(numbers, torch.Tensor) else numbers), offset, size, stride

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (*self.arguments, False, OrderedDict())


class Storage:
    """A storage with any bytes for its content."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


def saved(thing, **how):
    buffer = io.BytesIO()
    torch.save(thing, buffer, **how)
    return buffer.getvalue()


class Evil:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call
