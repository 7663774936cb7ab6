// DiceBear's options as JSON, a line a face, on stdin; raw RGB bytes on stdout, row by row, 16×16 pixels a face.
import { createInterface } from 'node:readline';
import { createAvatar } from '@dicebear/core';
import * as pixelArt from '@dicebear/pixel-art';
import { Resvg } from '@resvg/resvg-js';

const EDGE = 16;
const DRAWING = { fitTo: { mode: 'width', value: 2 * EDGE }, font: { loadSystemFonts: false } };

// Two things that 16×16 pixels do not show otherwise: a beard's mask has the hair's own colour, so that a black beard is
// transparent, and here it is white; dark glasses hardly darken the eyes, and here they do.
const visible = (svg) =>
  svg
    .replace(/(<mask\b[^>]*><path\b[^>]*\bfill=")[^"]*/g, '$1#fff')
    .replaceAll('fill="#000" fill-opacity=".3"', 'fill="#000" fill-opacity=".7"');

// Drawn at twice the size, where each pixel of the art must be a block of four: nothing is lost at 16×16.
function picture(options) {
  const svg = visible(createAvatar(pixelArt, options).toString());
  const { width, pixels } = new Resvg(svg, DRAWING).render();
  const rgb = Buffer.alloc(3 * EDGE * EDGE);
  for (let y = 0; y < width; y++) {
    for (let x = 0; x < width; x++) {
      const from = 4 * (y * width + x), to = 3 * ((y >> 1) * EDGE + (x >> 1));
      if (y % 2 === 0 && x % 2 === 0) pixels.copy(rgb, to, from, from + 3);
      if (pixels[from + 3] !== 255 || rgb.compare(pixels, from, from + 3, to, to + 3))
        throw new Error(`pixel (${x}, ${y}) of ${JSON.stringify(options)}: not opaque, or not like its block of four`);
    }
  }
  return rgb;
}

const faces = [];
for await (const line of createInterface({ input: process.stdin })) faces.push(picture(JSON.parse(line)));
process.stdout.write(Buffer.concat(faces));
