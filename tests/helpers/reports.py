"""A run's folder to report on, figures to report, and the elements of a page."""

import json
import math
from html.parser import HTMLParser

import torch

from simdistill.reports.pictures import picture
from simdistill.reports.report import write_report
from simdistill.runs.folder import RunFolder

VOID = {"meta", "img", "br", "hr", "link", "input"}

CONFIG = {"verb": "distill", "teacher": "digits", "objective": "DiffInstruct()", "betas": [0.0, 0.999]}

CONFIG |= {"generator_lr": 0.0004, "batch": 64, "iterations": 200, "seed": 0}

SVG_TAGS = {"svg", "g", "path", "use", "text", "defs", "clippath", "rect"}


class Page(HTMLParser):
    """Every element of a page as (tag, attributes, text), in the order of their starts; tags must be balanced."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.html = [], [], html
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attrs):
        assert tag in SVG_TAGS, tag  # elsewhere HTML takes <i/> for <i>
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def texts(self, tag, cls=None):
        """The texts of all elements of a tag, and of a class, white space made plain."""
        found = [text for name, attrs, text in self.elements if name == tag and cls in (None, attrs.get("class"))]
        return [" ".join(text.split()) for text in found]

    def values(self, attribute):
        return [attrs[attribute] for _, attrs, _ in self.elements if attribute in attrs]


def figure(mean, std=0.0123, seeds=5):
    """A metric as it is stored."""
    return {"mean": mean, "std": std, "seeds": seeds, "values": [mean] * seeds}


def figures(frechet, rate, nfe, seeds=5):
    mean, std = frechet
    return {
        "frechet": figure(mean, std, seeds) | {"minimum": mean},
        "kernel": figure(-mean / 100, std / 10, seeds),
        "energy": figure(mean, std, seeds),
        "sliced_wasserstein": figure(mean, std, seeds),
        "precision": figure(0.87741, seeds=seeds),
        "recall": figure(mean / 2, seeds=seeds),
        "density": figure(1.01, seeds=seeds),
        "coverage": figure(0.9, seeds=seeds),
        "nfe": nfe,
        "images_per_second": rate,
        "samples": 2000,
    }


def evaluation(student, teacher=(0.0956, 0.0123), speedup=31.4, seeds=5):
    others = ("kernel", "energy", "sliced_wasserstein", "precision", "recall", "density", "coverage")
    real = {"frechet": figure(0.13685, 0.0, 1), **{name: figure(0.5, 0.0, 1) for name in others}}
    return {
        "teacher": figures(teacher, 28.04, 35, seeds),
        "student": figures(student, 28.04 * speedup, 1, seeds),
        "undistilled": figures((6.7365, 0.1397), 1096.5, 1, seeds),
        "reference": "the <training> images",
        "real": {"samples": 449, **real},
        "own_metrics": {},
        "speedup": speedup,
        "machine": "an abacus <of wood>",
    }


def a_run(tmp_path, rng):
    """A run's folder with everything but the evaluation, named by a path relative to `tmp_path`."""
    run = RunFolder.create(tmp_path / "runs" / "mine", CONFIG)
    run.picture("x").parent.mkdir()
    for name in ("teacher", "student", "undistilled", *(f"{k:08d}" for k in range(0, 201, 10))):
        run.picture(name).write_bytes(picture(torch.randn(20, 1, 2, 2, generator=rng), edge=4))
    for k in range(0, 201, 50):
        distance, shares = figure(5 * math.exp(-k / 50), 0.1, 2), {"precision": 0.8, "recall": k / 300}
        quality = {"frechet": distance, **{name: figure(value, 0.0, 2) for name, value in shares.items()}}
        run.log_metrics({"iteration": k, "seconds": k / 2, "quality": quality})
        y = {"0.00388": 0.01, "11": 0.3} | ({"2.92": 0.5} if k else {})
        metrics = {"images_per_second": 128.0, "online_loss": 20.0, "generator_loss": -0.1, "levels": {"y_norm": y}}
        run.log_metrics({"iteration": k, "seconds": k / 2, **metrics})
    return RunFolder((tmp_path / "runs" / "mine").relative_to(tmp_path))


def write_config(run, **changes):
    values = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    run.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))


def report(run, values=None):
    if values is not None:
        run.evaluation.write_text(json.dumps(values))
    write_report(run)
    return Page(run.report.read_text())
