"""Tiny text encoders of transformers' with tokenizers made here, and whole pipelines' folders with them."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_models import SHORT, TINY, autoencoder

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import to_mapping
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.weights import write_network
from simdistill.workflows import encoding

diffusers, transformers, tokenizers = map(pytest.importorskip, ("diffusers", "transformers", "tokenizers"))

SENTENCE = "a the person with red blue green hair hat glasses smiling on background long short and shirt wearing"
WORDS = SENTENCE.split()


def t5_tokenizer(limit):
    """A word a token; 0 fills, 1 ends, 2 stands for what it does not know."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=limit, **special)


def t5(width=16):
    torch.manual_seed(1)
    sizes = {"d_model": width, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return transformers.T5EncoderModel(transformers.T5Config(vocab_size=len(WORDS) + 3, **sizes)).eval()


def clip_tokenizer(folder):
    """Letters are its tokens."""
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(c + "</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def clip(width, kind="CLIPTextModel", projected=12):
    torch.manual_seed(2)
    config = transformers.CLIPTextConfig(
        vocab_size=54, hidden_size=width, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        projection_dim=projected, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return getattr(transformers, kind)(config).eval()


def pipeline(name, folder, **scheduling):
    """A whole tiny pipeline, saved in `folder`."""
    tiny = TINY[name]
    flow = tiny.scheduler.startswith("Flow")
    scheduler = getattr(diffusers, tiny.scheduler)(**({} if flow else SHORT) | scheduling)
    vae = autoencoder(**({"shift_factor": 0.1} if flow else {}))
    part = "unet" if "UNet" in tiny.model else "transformer"
    letters, words = clip_tokenizer(folder / "letters"), t5_tokenizer(512)
    parts = {part: tiny.build(), "vae": vae, "scheduler": scheduler}
    if name == "PixArtAlphaPipeline":
        parts |= {"tokenizer": words, "text_encoder": t5()}
    elif name == "StableDiffusionPipeline":
        parts |= {"tokenizer": letters, "text_encoder": clip(16)}
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    elif name == "StableDiffusionXLPipeline":  # widths add up to 16; pooled is the second's projection
        parts |= {"tokenizer": letters, "text_encoder": clip(8)}
        parts |= {"tokenizer_2": letters, "text_encoder_2": clip(8, "CLIPTextModelWithProjection")}
    elif name == "StableDiffusion3Pipeline":  # CLIP's widths are filled up to T5's; projections add up to 12
        parts |= {"tokenizer": letters, "text_encoder": clip(6, "CLIPTextModelWithProjection", 6)}
        parts |= {"tokenizer_2": letters, "text_encoder_2": clip(6, "CLIPTextModelWithProjection", 6)}
        parts |= {"tokenizer_3": words, "text_encoder_3": t5()}
    else:
        parts |= {"tokenizer": letters, "text_encoder": clip(12)}
        parts |= {"tokenizer_2": words, "text_encoder_2": t5()}
    whole = getattr(diffusers, name)(**parts)
    whole.save_pretrained(folder)
    if name == "FluxPipeline":  # its configuration has no size
        config = folder / part / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 8}))
    whole.set_progress_bar_config(disable=True)
    return whole


PROMPTS = ["a person with red hair", "the person wearing a green hat and glasses", "hair"]


def write(path, prompts):
    path.write_text("\n".join(prompts))
    return str(path)


def encoded(folder, tmp_path):
    """`PROMPTS` by the encoder of a pipeline's folder."""
    encoding.encode(tmp_path / write(tmp_path / "p.txt", PROMPTS), str(folder), tmp_path / "out")
    return tmp_path / "out"


def distill(folder, prompts, out, *more):
    """The command's exit code, for a few small iterations."""
    small = ["--batch", "4", "--gradient-accumulation", "1", "--iterations", "3", "--precision", "fp32"]
    small += ["--teacher-levels", "scheduler"]  # of 20 times
    words = ["--teacher", str(folder), "--prompts", str(prompts), "--out", str(out), *small, *more]
    return main(["distill", "pixart-512", *words])


def untrained(folder, out, **settings):
    """A run of a pipeline's folder whose student is its teacher, a little changed; returns the student's network."""
    recipe = replace(RECIPES["pixart-512"], teacher=str(folder), teacher_levels="scheduler", prompts="unused")
    RunFolder.create(out, {"verb": "distill", **to_mapping(replace(recipe, **settings))})
    student = load_teacher(str(folder)).denoiser
    torch.manual_seed(5)
    for p in student.parameters():
        p.add_(0.02 * torch.randn(p.shape))
    facts = {"levels": [2.5], "shape": (4, 8, 8), "classes": 0, "text": True}
    write_network(RunFolder(out).network, student, **facts)
    return student
