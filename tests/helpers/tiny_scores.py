"""Tiny networks with random weights, in the folders and files that the scores' weights are published in."""

import pytest
import torch
from text_encoders import clip_tokenizer

transformers = pytest.importorskip("transformers")

EDGE, PATCH, WIDTH = 28, 14, 12
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "green", "hat", "hair"]
PROMPTS = ["red hat", "a green hat green hair", "hair"]


def clip_config(act="quick_gelu", width=WIDTH):
    text = {"hidden_size": 8, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    text |= {"vocab_size": 54, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "hidden_act": act}
    vision = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": EDGE, "patch_size": PATCH, "hidden_act": act}
    return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)


def save_clip(folder, seed=5, **more):
    """A folder of transformers', with its tokenizer; of `pictures` and `PROMPTS` some cosines are negative."""
    torch.manual_seed(seed)
    model = transformers.CLIPModel(clip_config(**more)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(folder)
    clip_tokenizer(folder.parent / "letters").save_pretrained(folder)
    return folder


def random_tensors(shapes, seed):
    rng = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def open_clip_state(text_layers=3):
    """The tensors of `clip_config`'s network under the names that open_clip publishes it with."""

    def block(name, width):
        norms = {f"{name}.{norm}.{kind}": [width] for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        return norms | {
            f"{name}.attn.in_proj_weight": [3 * width, width],
            f"{name}.attn.in_proj_bias": [3 * width],
            f"{name}.attn.out_proj.weight": [width, width],
            f"{name}.attn.out_proj.bias": [width],
            f"{name}.mlp.c_fc.weight": [4 * width, width],
            f"{name}.mlp.c_fc.bias": [4 * width],
            f"{name}.mlp.c_proj.weight": [width, 4 * width],
            f"{name}.mlp.c_proj.bias": [width],
        }

    shapes = {
        "positional_embedding": [77, 8],
        "text_projection": [8, WIDTH],
        "logit_scale": [],
        "visual.class_embedding": [16],
        "visual.positional_embedding": [5, 16],
        "visual.proj": [16, WIDTH],
        "visual.conv1.weight": [16, 3, PATCH, PATCH],
        "token_embedding.weight": [54, 8],
    }
    for norm, width in (("visual.ln_pre", 16), ("visual.ln_post", 16), ("ln_final", 8)):
        shapes |= {f"{norm}.{kind}": [width] for kind in ("weight", "bias")}
    for k in range(2):
        shapes |= block(f"visual.transformer.resblocks.{k}", 16)
    for k in range(text_layers):
        shapes |= block(f"transformer.resblocks.{k}", 8)
    return random_tensors(shapes, 1)


def save_open_clip(folder):
    """HPSv2's file, in the folder that it is to be put into: without weights of its own."""
    clip_config(act="gelu").save_pretrained(folder)
    clip_tokenizer(folder)
    torch.save({"state_dict": open_clip_state()}, folder / "HPS_v2.1_compressed.pt")
    return folder / "HPS_v2.1_compressed.pt"


def head_state(width, seed=2):
    layers = {0: (1024, width), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    weights = {f"layers.{k}.weight": shape for k, shape in layers.items()}
    return random_tensors(weights | {f"layers.{k}.bias": shape[:1] for k, shape in layers.items()}, seed)


def save_head(path, width=WIDTH):
    """LAION's predictor."""
    torch.save(head_state(width), path)
    return path


def image_reward_state():
    """The tensors of a small ImageReward, with those of BLIP's that it makes no use of."""

    def linear(name, outputs, inputs):
        return {f"{name}.weight": [outputs, inputs], f"{name}.bias": [outputs]}

    def norm(name, width):
        return {f"{name}.weight": [width], f"{name}.bias": [width]}

    eye, reader = "blip.visual_encoder", "blip.text_encoder"
    shapes = {f"{eye}.cls_token": [1, 1, 128], f"{eye}.pos_embed": [1, 5, 128]}
    shapes |= {f"{eye}.patch_embed.proj.weight": [128, 3, 16, 16], f"{eye}.patch_embed.proj.bias": [128]}
    shapes |= norm(f"{eye}.norm", 128)
    for k in range(2):
        block = f"{eye}.blocks.{k}"
        shapes |= norm(f"{block}.norm1", 128) | norm(f"{block}.norm2", 128)
        shapes |= linear(f"{block}.attn.qkv", 384, 128) | linear(f"{block}.attn.proj", 128, 128)
        shapes |= linear(f"{block}.mlp.fc1", 512, 128) | linear(f"{block}.mlp.fc2", 128, 512)
    shapes |= {f"{reader}.embeddings.word_embeddings.weight": [len(WORDS) + 2, 64]}
    shapes |= {f"{reader}.embeddings.position_embeddings.weight": [40, 64]} | norm(f"{reader}.embeddings.LayerNorm", 64)
    for k in range(3):
        layer = f"{reader}.encoder.layer.{k}"
        for attention, inputs in (("attention", 64), ("crossattention", 128)):
            shapes |= linear(f"{layer}.{attention}.self.query", 64, 64)
            shapes |= linear(f"{layer}.{attention}.self.key", 64, inputs)
            shapes |= linear(f"{layer}.{attention}.self.value", 64, inputs)
            shapes |= linear(f"{layer}.{attention}.output.dense", 64, 64)
            shapes |= norm(f"{layer}.{attention}.output.LayerNorm", 64)
        shapes |= linear(f"{layer}.intermediate.dense", 256, 64) | linear(f"{layer}.output.dense", 64, 256)
        shapes |= norm(f"{layer}.output.LayerNorm", 64)
    shapes |= linear("blip.vision_proj", 256, 128) | linear("blip.text_proj", 256, 64)
    head = {f"mlp.{name}": tensor for name, tensor in head_state(64, seed=3).items()}
    found = random_tensors(shapes, 4)
    words = {n: 1 + tensor for n, tensor in found.items() if "LayerNorm.weight" in n}  # else they make no difference
    return found | words | head | {f"{reader}.embeddings.position_ids": torch.arange(40)[None]}


def save_image_reward(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(image_reward_state(), folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder / "ImageReward.pt"


def pictures(n=3, height=40, width=52, channels=3):
    return 2 * torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(7)) - 1


def images_of(pictures):
    """The same as Pillow's images of 8 bits."""
    from PIL import Image

    pixels = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return [Image.fromarray(one.numpy()) for one in pixels]
