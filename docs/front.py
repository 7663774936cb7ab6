"""`python -m docs.front`: renew docs/front.png, samples of the shipped students beside their teachers'. A minute."""

import io
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from simdistill.data.prompts import read_prompts
from simdistill.evaluation.sampling import draw, student_sampler, teacher_sampler
from simdistill.reports.pictures import caption_font, picture
from simdistill.support.files import write_atomically
from simdistill.teachers.encoders import load_encoder
from simdistill.workflows.models import load_generator, teacher_and_recipe

PICTURE = Path(__file__).parent / "front.png"
SHIPPED = {"fashion-mnist": "Clothes", "faces": "Faces for captions"}
COLUMNS, ROWS = 6, 3  # images of a panel
WIDTH, GAP, HEAD = 396, 20, 24  # pixels: of a panel, between panels, of a title


def main() -> None:
    """A row for each student: its teacher's samples, and its own from the same seeds and conditions."""
    rows = [pair(name, title) for name, title in SHIPPED.items()]
    heights = [HEAD + panels[0][1].height + GAP for panels in rows]
    sheet = Image.new("RGB", (3 * GAP + 2 * WIDTH, GAP + sum(heights)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(caption_font().path, 14)
    for k, panels in enumerate(rows):
        for column, (title, image) in enumerate(panels):
            x, y = GAP + column * (WIDTH + GAP), GAP + sum(heights[:k])
            pen.text((x, y), title, fill="black", font=font)
            sheet.paste(image, (x, y + HEAD))
    buffer = io.BytesIO()
    sheet.quantize(256).save(buffer, "PNG", optimize=True)
    write_atomically(PICTURE, buffer.getvalue())


def pair(name: str, title: str) -> list[tuple[str, Image.Image]]:
    """A panel of the teacher's samples, and one of the student's, with titles."""
    teacher, recipe = teacher_and_recipe(name)
    if teacher.text is not None:
        prompts = read_prompts(Path("faces"))[: COLUMNS * ROWS]
        encoder = load_encoder(teacher.asked.encoder, "cpu", tokens=teacher.text.tokens)
        teacher = teacher.with_prompts(encoder(prompts), encoder.empty())
    teacher = teacher.prepared(recipe)
    samplers = {"teacher": teacher_sampler(teacher), "student": student_sampler(load_generator(name)[0], teacher)}
    labels = torch.arange(COLUMNS * ROWS) % teacher.conditions
    panels: list[tuple[str, Image.Image]] = []
    for who, sampler in samplers.items():
        drawn = teacher.decoded(draw(sampler, range(len(labels)), teacher.shape, labels), "cpu")
        grid = Image.open(io.BytesIO(picture(drawn, COLUMNS, edge=64))).convert("RGB")
        size = (WIDTH, round(grid.height * WIDTH / grid.width))
        panels.append((f"{title}: {who}, NFE {sampler.nfe}", grid.resize(size, Image.Resampling.NEAREST)))
    return panels


if __name__ == "__main__":
    main()
