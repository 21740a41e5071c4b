"""Label maps drawn over their picture, with a legend below it."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Bool, Float, Int, UInt8

# The first colours: those of Okabe and Ito (2008), which colour-blind people can tell
# apart, without black, and then others far from them and from each other.
_FIRST = (
  (0, 114, 178),
  (230, 159, 0),
  (0, 158, 115),
  (204, 121, 167),
  (213, 94, 0),
  (86, 180, 233),
  (240, 228, 66),
  (130, 20, 40),
  (90, 40, 140),
  (170, 255, 170),
  (150, 95, 30),
  (255, 60, 60),
  (0, 80, 40),
  (255, 190, 200),
  (0, 220, 220),
  (240, 0, 200),
  (130, 130, 0),
  (20, 40, 255),
  (120, 220, 0),
  (185, 165, 255),
)
_MOST = 2048  # different colours
_STEPS = 17  # levels of each channel among which further colours are chosen
_PAPER, _INK, _PALE = (255, 255, 255), (25, 25, 25), (110, 110, 110)

# Searched in this order for a name that the font before lacks letters for. The first
# comes with matplotlib; the others are those of operating systems.
_FONTS = ('DejaVuSans.ttf', 'NotoSansCJK-Regular.ttc', 'msyh.ttc', 'Arial Unicode.ttf')
_MISSING = '\U000fffff'  # private use: no font has it


def palette(count: int) -> UInt8[np.ndarray, 'n 3']:
  """Returns RGB colours that differ as much as possible, always the same ones.

  Colour i does not depend on `count`. After 2048 they repeat.
  """
  size = min(max(64, 2 ** math.ceil(math.log2(max(count, 1)))), _MOST)
  return _colours(size)[np.arange(count) % size]


@functools.cache
def _colours(count: int) -> UInt8[np.ndarray, 'n 3']:
  """Returns the colours chosen by hand, then always the one farthest from all."""
  levels = np.linspace(0, 255, _STEPS).round()
  grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
  lab = to_lab(grid)
  vivid = (lab[:, 0] > 25) & (lab[:, 0] < 92) & (np.ptp(grid, axis=1) > 40)
  grid, lab = grid[vivid], lab[vivid]
  chosen = [np.array(colour, float) for colour in _FIRST]
  first = to_lab(np.stack(chosen))
  distance = np.linalg.norm(lab[:, None] - first[None], axis=2).min(axis=1)
  while len(chosen) < count:
    best = int(np.argmax(distance))
    chosen.append(grid[best])
    away = np.linalg.norm(lab - lab[best][None], axis=1)
    distance = np.minimum(distance, away)
  return np.stack(chosen).astype(np.uint8)


def to_lab(rgb: Float[np.ndarray, 'n 3']) -> Float[np.ndarray, 'n 3']:
  """Converts sRGB in 0..255 to CIELAB (D65), where distances are those one sees."""
  x = rgb / 255
  x = np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
  to_xyz = [
    [0.4124, 0.3576, 0.1805],
    [0.2126, 0.7152, 0.0722],
    [0.0193, 0.1192, 0.9505],
  ]
  x = x @ np.array(to_xyz).T / np.array([[0.95047, 1.0, 1.08883]])
  x = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
  light = 116 * x[:, 1] - 16
  a, b = 500 * (x[:, 0] - x[:, 1]), 200 * (x[:, 1] - x[:, 2])
  return np.stack([light, a, b], axis=1)


def blend(
  image: UInt8[np.ndarray, 'h w 3'],
  labels: Int[np.ndarray, 'H W'],
  colours: UInt8[np.ndarray, 'n 3'],
  *,
  alpha: float,
) -> UInt8[np.ndarray, 'h w 3']:
  """Tints every labelled pixel and draws the borders between labels.

  Args:
    image: RGB, 0..255.
    labels: indices into `colours`; pixels with any other value stay as they are.
    colours: one per label.
    alpha: opacity of the colours, 0..1; borders are opaque.
  """
  if image.shape[:2] != labels.shape:
    raise UserError(
      f'the image is {image.shape[:2]} (height, width), but the label map is '
      f'{labels.shape}; give the image that was segmented'
    )
  if not 0 <= alpha <= 1:
    raise UserError(f'alpha must lie in 0..1, got {alpha}')
  known = (labels >= 0) & (labels < len(colours))
  if not known.any():
    return image.copy()
  tint = colours[np.where(known, labels, 0)]
  share = np.uint16(round(256 * alpha))  # 255 * 256 still fits 16 bits
  mixed = (tint * share + image * np.uint16(256 - share) + np.uint16(128)) >> 8
  edge = borders(labels, width=max(1, round(max(labels.shape) / 700)))
  mixed = np.where(edge[..., None], tint, mixed.astype(np.uint8))
  return np.where(known[..., None], mixed, image)


def borders(labels: Int[np.ndarray, 'h w'], *, width: int) -> Bool[np.ndarray, 'h w']:
  """Marks pixels whose right or lower neighbour, `width` away, has another label."""
  edge = np.zeros(labels.shape, bool)
  edge[:-width] |= labels[:-width] != labels[width:]
  edge[:, :-width] |= labels[:, :-width] != labels[:, width:]
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
) -> Image.Image:
  """Draws the label map over the image, above a legend.

  Args:
    image: RGB, 0..255.
    labels: indices into `names`; any other value means no name.
    names: of the labels.
    alpha: opacity of the colours, 0..1.

  Returns:
    An RGB picture: the image in its own size, to the left if the legend is wider, and
    below it colour, name and share of each name that occurs, largest first, and the
    list of those that do not.
  """
  colours = palette(len(names))
  top = Image.fromarray(blend(image, labels, colours, alpha=alpha))
  width = max(top.width, top.height // 2, 320)
  bottom = legend(names, shares(labels, len(names)), colours, width=width)
  picture = Image.new('RGB', (width, top.height + bottom.height), _PAPER)
  picture.paste(top, (0, 0))
  picture.paste(bottom, (0, top.height))
  return picture


def legend(
  names: Sequence[str],
  areas: Float[np.ndarray, 'n'],
  colours: UInt8[np.ndarray, 'n 3'],
  *,
  width: int,
) -> Image.Image:
  """Draws colour, name and share of every name that occurs, in columns.

  Args:
    names: of the labels.
    areas: shares of the picture, 0..1; what lacks to 1 has no name.
    colours: one per name.
    width: of the result in pixels; long names are wrapped.
  """
  size = max(13, width // 56)
  order = [int(k) for k in np.argsort(-areas, kind='stable') if areas[k] > 0]
  entries = [(names[k], areas[k], tuple(colours[k].tolist())) for k in order]
  if (rest := 1 - float(areas.sum())) > 1e-9:
    entries.append(('no name', rest, None))
  texts = [f'{name}  {percent(share)}' for name, share, _ in entries]
  indent = round(1.6 * size)
  widest = max(_width(text, size) for text in texts) + indent + size
  # One long name must not force a single column on many short ones.
  fewest = 1 if len(texts) < 5 else max(1, min(3, width // (14 * size)))
  column = min(widest, (width - size) // fewest)
  columns = max(1, min((width - size) // column, len(texts)))
  wrapped = [_wrap(text, size, column - indent - size // 2) for text in texts]
  absent = [names[k] for k in range(len(names)) if areas[k] == 0]
  footer = []
  if absent:
    footer = _wrap(f'not found: {", ".join(absent)}', size, width - 2 * size)
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
    draw.rectangle(box, fill=entries[i][2], outline=_PALE)
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


def _wrap(text: str, size: int, width: int) -> list[str]:
  """Breaks a text into lines, between words where it can."""
  # Lone surrogates, from names that were not UTF-8, cannot be drawn.
  text = text.encode('utf-8', 'replace').decode('utf-8')
  lines = ['']
  for word in text.split(' '):
    longer = f'{lines[-1]} {word}' if lines[-1] else word
    if _width(longer, size) <= width:
      lines[-1] = longer
      continue
    if lines[-1]:
      lines.append('')
    for letter in word:
      if lines[-1] and _width(lines[-1] + letter, size) > width:
        lines.append('')
      lines[-1] += letter
  return lines


def _width(text: str, size: int) -> int:
  text = text.encode('utf-8', 'replace').decode('utf-8')
  return math.ceil(font_of(text, size).getlength(text))


def font_of(text: str, size: int) -> ImageFont.FreeTypeFont:
  """Returns the first font that has all letters of the text, else the first."""
  for name in _FONTS:
    font = _load_font(name, size)
    if font is not None and not lacks(name, size, ''.join(sorted(set(text)))):
      return font
  return _load_font(_FONTS[0], size)


@functools.lru_cache(maxsize=4096)
def lacks(name: str, size: int, letters: str) -> bool:
  """Returns whether a font has no glyph for one of the letters."""
  font = _load_font(name, size)
  missing = font.getmask(_MISSING)
  marks = [font.getmask(letter) for letter in letters if not letter.isspace()]
  return any(m.size == missing.size and bytes(m) == bytes(missing) for m in marks)


@functools.cache
def _load_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
  if name == _FONTS[0]:
    import matplotlib

    name = f'{matplotlib.get_data_path()}/fonts/ttf/{name}'
  try:
    return ImageFont.truetype(name, size)
  except OSError:
    return None
