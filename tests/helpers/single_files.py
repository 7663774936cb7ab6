"""Stable Diffusion's checkpoints of one file, written by the original's own names and numbers of blocks."""

import re

import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def unet_names(name, layers, attended):
    """A U-Net's tensor in the original's names; `attended` are the upper blocks that have attention."""
    part, _, kind = name.rpartition(".")
    if part in OUTSIDE:
        return f"{OUTSIDE[part]}.{kind}"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = {"resnets": 2 * int(found[2]), "attentions": 1}[found[1]]
        return f"middle_block.{place}.{inner(found[3]) if found[1] == 'resnets' else found[3]}"
    where, block, what, i, rest = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name).groups()
    block, i = int(block), int(i)
    if where == "down":
        place = 1 + block * (layers + 1) + (layers if what == "downsamplers" else i)
        last = {"resnets": "0", "attentions": "1", "downsamplers": "0"}[what]
        return f"input_blocks.{place}.{last}.{inner(rest).replace('conv.', 'op.')}"
    place = block * (layers + 1) + (layers if what == "upsamplers" else i)
    last = {"resnets": "0", "attentions": "1", "upsamplers": "2" if block in attended else "1"}[what]
    return f"output_blocks.{place}.{last}.{inner(rest)}"


def inner(rest):
    first, _, kind = rest.partition(".")
    return f"{RESNET[first]}.{kind}" if first in RESNET else rest


def autoencoder_names(name, blocks):
    """An AutoencoderKL's tensor in the original's names, whose decoder counts its blocks from the picture on."""
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)
    for new, old in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        name = name.replace(f"attn_1.{new}", f"attn_1.{old}")
    return name.replace("conv_shortcut", "nin_shortcut")


def open_clip(state, layers):
    """A text encoder of transformers' in OpenCLIP's names, with query, key and value in one."""
    names = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    found = {old: state[new] for new, old in names.items()}
    found["text_projection"] = state["text_projection.weight"].T
    for i in range(layers):
        ours, theirs = f"text_model.encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            parts = [state[f"{ours}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{theirs}attn.in_proj_{kind}"] = torch.cat(parts)
            for new, old in {
                "self_attn.out_proj": "attn.out_proj",
                "layer_norm1": "ln_1",
                "layer_norm2": "ln_2",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
            }.items():
                found[f"{theirs}{old}.{kind}"] = state[f"{ours}{new}.{kind}"]
    return found


def clip_state(encoder):
    """The tensors of a text encoder, all under text_model, as in every version of transformers before 5.6."""
    return {name if name.startswith("text_") else f"text_model.{name}": t for name, t in encoder.state_dict().items()}


def write_single_file(path, pipeline):
    """All weights of a tiny Stable Diffusion or SDXL pipeline in one .safetensors, as the original code names them."""
    unet, vae = pipeline.unet, pipeline.vae
    attended = [i for i, kind in enumerate(unet.config.up_block_types) if kind.startswith("CrossAttn")]
    tensors = {
        f"model.diffusion_model.{unet_names(name, unet.config.layers_per_block, attended)}": tensor
        for name, tensor in unet.state_dict().items()
    }
    for name, tensor in vae.state_dict().items():
        old = autoencoder_names(name, len(vae.config.block_out_channels))
        square = ".attn_1." in old and old.endswith("weight") and tensor.ndim == 2
        tensors[f"first_stage_model.{old}"] = tensor[:, :, None, None] if square else tensor
    first = clip_state(pipeline.text_encoder)
    second = getattr(pipeline, "text_encoder_2", None)
    begins = "cond_stage_model.transformer." if second is None else "conditioner.embedders.0.transformer."
    tensors |= {begins + name: tensor for name, tensor in first.items()}
    if second is not None:
        layers = second.config.num_hidden_layers
        open_names = open_clip(clip_state(second), layers)
        tensors |= {f"conditioner.embedders.1.model.{name}": tensor for name, tensor in open_names.items()}
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)
    return path
