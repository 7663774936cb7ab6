"""CLIP and ImageReward written down once more, from their tensors' published names: matrices alone, in float64."""

import math

import torch


def norm(x, state, name, eps):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def attention(q, k, v, heads, blocked=None):
    """One picture or prompt: `[tokens, width]` each; `blocked` says what is not to be looked at."""
    d = q.shape[1] // heads
    found = []
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        logits = q[:, part] @ k[:, part].T / math.sqrt(d)
        if blocked is not None:
            logits = logits.masked_fill(blocked, -torch.inf)
        found.append(logits.softmax(1) @ v[:, part])
    return torch.cat(found, 1)


def patches(pixels, edge):
    """`[places, 3 edge²]`: the squares of a picture `[3, height, width]`, row by row."""
    _, height, width = pixels.shape
    corners = [(top, left) for top in range(0, height, edge) for left in range(0, width, edge)]
    return torch.stack([pixels[:, top : top + edge, left : left + edge].flatten() for top, left in corners])


def blocks(x, state, prefix, heads, blocked=None):
    """open_clip's transformer: queries, keys and values in one matrix, norms before."""
    depth = 1 + max(int(n.removeprefix(prefix).split(".")[0]) for n in state if n.startswith(prefix))
    for name in (f"{prefix}{k}" for k in range(depth)):
        y = norm(x, state, f"{name}.ln_1", 1e-5)
        joint = y @ state[f"{name}.attn.in_proj_weight"].T + state[f"{name}.attn.in_proj_bias"]
        x = x + linear(attention(*joint.chunk(3, 1), heads, blocked), state, f"{name}.attn.out_proj")
        y = gelu(linear(norm(x, state, f"{name}.ln_2", 1e-5), state, f"{name}.mlp.c_fc"))
        x = x + linear(y, state, f"{name}.mlp.c_proj")
    return x


def clip_picture(state, pixels, heads=2):
    state = {name: tensor.double() for name, tensor in state.items()}
    kernel = state["visual.conv1.weight"]
    places = patches(pixels.double(), kernel.shape[-1]) @ kernel.flatten(1).T
    x = torch.cat([state["visual.class_embedding"][None], places]) + state["visual.positional_embedding"]
    x = blocks(norm(x, state, "visual.ln_pre", 1e-5), state, "visual.transformer.resblocks.", heads)
    return norm(x[0], state, "visual.ln_post", 1e-5) @ state["visual.proj"]


def clip_prompt(state, ids, heads=2):
    """`ids` from the beginning to the end of the text, whose last token speaks for all."""
    state = {name: tensor.double() for name, tensor in state.items()}
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: len(ids)]
    later = torch.ones(len(ids), len(ids)).triu(1).bool()
    x = blocks(x, state, "transformer.resblocks.", heads, later)
    return norm(x[-1], state, "ln_final", 1e-5) @ state["text_projection"]


def head(state, x, prefix=""):
    for k in (0, 2, 4, 6, 7):
        x = linear(x, state, f"{prefix}layers.{k}")
    return x


def image_reward(state, pixels, ids, heads=(2, 1)):
    """`ids` without what fills them up, as nobody looks at it."""
    state = {name: tensor.double() for name, tensor in state.items() if tensor.is_floating_point()}
    eye, reader = "blip.visual_encoder", "blip.text_encoder"
    kernel = state[f"{eye}.patch_embed.proj.weight"]
    places = patches(pixels.double(), kernel.shape[-1]) @ kernel.flatten(1).T + state[f"{eye}.patch_embed.proj.bias"]
    seen = torch.cat([state[f"{eye}.cls_token"][0], places]) + state[f"{eye}.pos_embed"][0]
    for name in (f"{eye}.blocks.{k}" for k in range(2)):
        joint = linear(norm(seen, state, f"{name}.norm1", 1e-6), state, f"{name}.attn.qkv")
        seen = seen + linear(attention(*joint.chunk(3, 1), heads[0]), state, f"{name}.attn.proj")
        inner = gelu(linear(norm(seen, state, f"{name}.norm2", 1e-6), state, f"{name}.mlp.fc1"))
        seen = seen + linear(inner, state, f"{name}.mlp.fc2")
    seen = norm(seen, state, f"{eye}.norm", 1e-6)
    embedded = f"{reader}.embeddings"
    x = state[f"{embedded}.word_embeddings.weight"][ids] + state[f"{embedded}.position_embeddings.weight"][: len(ids)]
    x = norm(x, state, f"{embedded}.LayerNorm", 1e-12)
    for name in (f"{reader}.encoder.layer.{k}" for k in range(3)):
        for part, source in (("attention", None), ("crossattention", seen)):
            look = x if source is None else source
            own = f"{name}.{part}.self"
            query, key, value = (
                linear(x, state, f"{own}.query"),
                *(linear(look, state, f"{own}.{n}") for n in ("key", "value")),
            )
            found = linear(attention(query, key, value, heads[1]), state, f"{name}.{part}.output.dense")
            x = norm(x + found, state, f"{name}.{part}.output.LayerNorm", 1e-12)
        inner = gelu(linear(x, state, f"{name}.intermediate.dense"))
        x = norm(x + linear(inner, state, f"{name}.output.dense"), state, f"{name}.output.LayerNorm", 1e-12)
    return (head(state, x[0], "mlp.").squeeze() - 0.16717362830052426) / 1.0333394966054072
