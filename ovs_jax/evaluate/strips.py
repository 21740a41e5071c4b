"""Pictures beside their label maps, true and predicted."""

import numpy as np
from PIL import Image, ImageDraw

from ovs_jax.core.types import Num, UInt8
from ovs_jax.ops.colours import palette
from ovs_jax.ops.fonts import font_of
from ovs_jax.ops.overlay import blend, legend, percent, shares
from ovs_jax.text.vocabulary import Vocabulary

_GAP = 8  # pixels between panels
_SCALE = 3  # scenes are small
_TITLE = 18  # pixels above a panel
_TITLES = ('input', 'truth', 'prediction')


def strip(
  image: UInt8[np.ndarray, 'h w 3'],
  truth: Num[np.ndarray, 'h w'],
  prediction: Num[np.ndarray, 'h w'],
  names: Vocabulary,
  *,
  scale: int = _SCALE,
) -> Image.Image:
  """Returns the image beside both label maps, above a legend of their classes.

  A class has the same colour in every strip of a vocabulary. The legend says which
  share of the picture it has in the truth, and which in the prediction.

  Args:
    image: RGB, 0..255.
    truth: indices into the vocabulary; other values are void.
    prediction: likewise.
    names: the vocabulary.
    scale: side of the square that shows a pixel.
  """
  colours = palette(len(names))
  panels, areas = [_enlarged(image, scale)], []
  for labels in (truth, prediction):
    labels = labels.astype(int)  # which -1 is none of where they are unsigned
    known = np.where((labels >= 0) & (labels < len(names)), labels, -1)
    areas.append(shares(known, len(names)))
    known = _enlarged(known, scale)
    panels.append(blend(panels[0], known, colours, alpha=0.75))
  h, w = panels[0].shape[:2]
  width = len(panels) * (w + _GAP) - _GAP
  below = _legend(np.stack(areas), colours, names, width)
  picture = Image.new('RGB', (width, _TITLE + h + below.height), 'white')
  draw = ImageDraw.Draw(picture)
  for i, (title, panel) in enumerate(zip(_TITLES, panels, strict=True)):
    draw.text((i * (w + _GAP), 1), title, 'black', font_of(title, _TITLE - 6))
    picture.paste(Image.fromarray(panel), (i * (w + _GAP), _TITLE))
  picture.paste(below, (0, _TITLE + h))
  return picture


def _enlarged(pixels: Num[np.ndarray, 'h w *c'], scale: int) -> Num[np.ndarray, '...']:
  return np.repeat(np.repeat(pixels, scale, 0), scale, 1)


def _legend(
  areas: Num[np.ndarray, '2 k'],
  colours: UInt8[np.ndarray, 'k 3'],
  names: Vocabulary,
  width: int,
) -> Image.Image:
  present = np.flatnonzero(areas.any(axis=0))
  titles = [
    f'{names.names[k]} (unseen)' if names.splits[k] == 'unseen' else names.names[k]
    for k in present.tolist()
  ]
  columns = [*areas[:, present].T, 1 - areas.sum(axis=1)]
  told = [f'{percent(true)} true, {percent(found)} found' for true, found in columns]
  shown = areas[:, present].mean(axis=0)
  return legend(titles, shown, colours[present], width=width, told=told)
