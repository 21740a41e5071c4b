"""Label maps drawn over their picture, with a legend below it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Bool, Float, Int, UInt8
from ovs_jax.ops.colours import palette, to_lab
from ovs_jax.ops.fonts import drawable, font_of, text_width, wrap
from ovs_jax.ops.name_places import main_parts, room

_PAPER, _INK, _PALE = (255, 255, 255), (25, 25, 25), (110, 110, 110)
_BLACK = (0, 0, 0)
_LIGHT = 65  # CIELAB's L from which black lines stand out more than white ones
_SMALLEST = 11  # pixels of letters that can be read


def blend(
  image: UInt8[np.ndarray, 'h w 3'],
  labels: Int[np.ndarray, 'H W'],
  colours: UInt8[np.ndarray, 'n 3'],
  *,
  alpha: float,
) -> UInt8[np.ndarray, 'h w 3']:
  """Tints the labelled pixels of the picture in grey, and outlines what has a label.

  Outlines are black in light colours and white in dark ones, and so stand out on both
  sides of a border.

  Args:
    image: RGB, 0..255.
    labels: indices into `colours`; pixels with any other value are grey.
    colours: one per label.
    alpha: opacity of the colours, 0..1; outlines are opaque.
  """
  if image.shape[:2] != labels.shape:
    raise UserError(
      f'the image is {image.shape[:2]} (height, width), but the label map is '
      f'{labels.shape}; give the image that was segmented'
    )
  if not 0 <= alpha <= 1:
    raise UserError(f'alpha must lie in 0..1, got {alpha}')
  # Rec. 601, in 1/256; 255 * 256 still fits 16 bits.
  grey = (image @ np.array([77, 150, 29], np.uint16) + np.uint16(128)) >> 8
  grey = np.broadcast_to(grey.astype(np.uint8)[..., None], image.shape)
  known = (labels >= 0) & (labels < len(colours))
  if not known.any():
    return grey.copy()
  index = np.where(known, labels, 0)
  share = np.uint16(round(256 * alpha))
  mixed = colours[index] * share + grey * np.uint16(256 - share) + np.uint16(128)
  line = lines(colours)[index]
  edge = borders(labels, width=max(1, round(max(labels.shape) / 1000)))
  drawn = np.where(edge[..., None], line[..., None], (mixed >> 8).astype(np.uint8))
  return np.where(known[..., None], drawn, grey)


def lines(colours: UInt8[np.ndarray, 'n 3']) -> UInt8[np.ndarray, 'n']:
  """Returns the grey of outlines, that stands out from each colour: 0 or 255."""
  dark = to_lab(colours.astype(np.float64))[:, 0] < _LIGHT
  return np.where(dark, 255, 0).astype(np.uint8)


def borders(labels: Int[np.ndarray, 'h w'], *, width: int) -> Bool[np.ndarray, 'h w']:
  """Marks pixels that have another label up to `width` away, in any of 4 directions."""
  edge = np.zeros(labels.shape, bool)
  for axis in (0, 1):
    rows, marked = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
    for step in range(1, width + 1):
      other = rows[:-step] != rows[step:]
      marked[:-step] |= other
      marked[step:] |= other
  return edge


def shares(labels: Int[np.ndarray, 'h w'], count: int) -> Float[np.ndarray, 'n']:
  """Returns the share of the picture, 0..1, of each of `count` labels."""
  known = labels[(labels >= 0) & (labels < count)]
  return np.bincount(known, minlength=count) / labels.size


def overlay(
  image: UInt8[np.ndarray, 'h w 3'],
  labels: Int[np.ndarray, 'H W'],
  names: Sequence[str],
  *,
  alpha: float = 0.55,
  colours: UInt8[np.ndarray, 'n 3'] | None = None,
) -> Image.Image:
  """Draws the label map over the image in grey, above a legend.

  A name is written in the largest part of its pixels where it fits into it.

  Args:
    image: RGB, 0..255.
    labels: indices into `names`; any other value means no name.
    names: of the labels.
    alpha: opacity of the colours, 0..1.
    colours: one per name; None takes the palette's.

  Returns:
    An RGB picture: the image in its own size, to the left if the legend is wider, and
    below it colour, name and share of each name that occurs, largest first, and the
    list of those that do not.
  """
  colours = palette(len(names)) if colours is None else colours
  top = Image.fromarray(blend(image, labels, colours, alpha=alpha))
  write_names(top, labels, names)
  width = max(top.width, top.height // 2, 320)
  bottom = legend(names, shares(labels, len(names)), colours, width=width)
  picture = Image.new('RGB', (width, top.height + bottom.height), _PAPER)
  picture.paste(top, (0, 0))
  picture.paste(bottom, (0, top.height))
  return picture


def write_names(
  picture: Image.Image, labels: Int[np.ndarray, 'h w'], names: Sequence[str]
) -> None:
  """Writes each name into its pixels, white with a black halo.

  Args:
    picture: RGB, which is written on.
    labels: of its size, indices into `names`; any other value means no name.
    names: of the labels; those that fit nowhere are left out.
  """
  draw = ImageDraw.Draw(picture)
  largest = max(_SMALLEST, round(max(labels.shape) / 40))
  for label, mask, step in main_parts(labels, len(names)):
    for size in (largest, round(0.8 * largest), round(0.65 * largest)):
      halo = max(1, size // 9)
      font, text = font_of(names[label], size), drawable(names[label])
      left, top, right, bottom = draw.textbbox((0, 0), text, font, stroke_width=halo)
      box = right - left, bottom - top
      if size >= _SMALLEST and (corner := room(mask, step, box)) is not None:
        corner = corner[0] - left, corner[1] - top
        draw.text(corner, text, _PAPER, font, stroke_width=halo, stroke_fill=_BLACK)
        break


def legend(
  names: Sequence[str],
  areas: Float[np.ndarray, 'n'],
  colours: UInt8[np.ndarray, 'n 3'],
  *,
  width: int,
  told: Sequence[str] | None = None,
) -> Image.Image:
  """Draws colour, name and share of every name that occurs, in columns.

  Args:
    names: of the labels.
    areas: shares of the picture, 0..1; what lacks to 1 has no name.
    colours: one per name.
    width: of the result in pixels; long names are wrapped.
    told: what is written after each name, and after 'no name', in place of the share.
  """
  told = [percent(x) for x in (*areas, 1 - areas.sum())] if told is None else told
  size = max(13, width // 56)
  order = [int(k) for k in np.argsort(-areas, kind='stable') if areas[k] > 0]
  texts = [f'{names[k]}  {told[k]}' for k in order]
  fills = [tuple(colours[k].tolist()) for k in order]
  if 1 - float(areas.sum()) > 1e-9:
    texts, fills = [*texts, f'no name  {told[-1]}'], [*fills, None]
  indent = round(1.6 * size)
  widest = max(text_width(text, size) for text in texts) + indent + size
  # One long name must not force a single column on many short ones.
  fewest = 1 if len(texts) < 5 else max(1, min(3, width // (14 * size)))
  column = min(widest, (width - size) // fewest)
  columns = max(1, min((width - size) // column, len(texts)))
  wrapped = [wrap(text, size, column - indent - size // 2) for text in texts]
  absent = [names[k] for k in range(len(names)) if areas[k] == 0]
  footer = []
  if absent:
    footer = wrap(f'not found: {", ".join(absent)}', size, width - 2 * size)
  if len(footer) > 6:
    footer = [*footer[:5], f'... ({len(absent)} of {len(names)} names)']
  line, depth = round(1.4 * size), -(-len(texts) // columns)
  stacks = [wrapped[start : start + depth] for start in range(0, len(wrapped), depth)]
  height = line * (max(sum(map(len, stack)) for stack in stacks) + len(footer))
  canvas = Image.new('RGB', (width, height + size), _PAPER)
  draw = ImageDraw.Draw(canvas)
  for i, lines in enumerate(wrapped):
    y = size // 2 + line * sum(map(len, wrapped[i - i % depth : i]))
    x = size // 2 + (i // depth) * column
    box = (x, y + size // 8, x + size, y + size // 8 + size)
    draw.rectangle(box, fill=fills[i], outline=_PALE)
    _write(draw, (x + indent, y), lines, size, line, _INK)
  top = size // 2 + height - line * len(footer)
  _write(draw, (size // 2, top), footer, size, line, _PALE)
  return canvas


def percent(share: float) -> str:
  """Writes a share in 0..1, such as '12.3 %'; a trace is '< 0.1 %'."""
  return f'{100 * share:.1f} %' if share == 0 or share >= 0.0005 else '< 0.1 %'


def _write(
  draw: ImageDraw.ImageDraw,
  corner: tuple[int, int],
  lines: Sequence[str],
  size: int,
  step: int,
  colour: tuple[int, int, int],
) -> None:
  x, y = corner
  for i, text in enumerate(lines):
    draw.text((x, y + i * step), text, fill=colour, font=font_of(text, size))
