"""Heat maps of prompts as a sheet to look at."""

import numpy as np
from PIL import Image, ImageDraw

from ovs_jax.core.types import Float, UInt8
from ovs_jax.inference.prompted import PromptedSegmentation

_SHOWN = 20  # names on a sheet, the most probable ones
_WIDTH = 240  # pixels of a picture on the sheet
_COLUMNS = 4
_TITLE = 14


def heat_sheet(
  result: PromptedSegmentation, image: UInt8[np.ndarray, 'h w 3']
) -> Image.Image:
  """Returns a picture per name, darkened where the name is improbable."""
  peaks = result.heat.reshape(len(result.names), -1).max(axis=1).astype(np.float32)
  order = np.argsort(-peaks, kind='stable')[:_SHOWN]
  height = max(1, round(_WIDTH * image.shape[0] / image.shape[1]))
  small = Image.fromarray(image).resize((_WIDTH, height), Image.Resampling.BILINEAR)
  columns = min(_COLUMNS, len(order))
  rows = -(-len(order) // columns)
  page = Image.new('RGB', (columns * _WIDTH, rows * (height + _TITLE)), 'white')
  draw = ImageDraw.Draw(page)
  for place, k in enumerate(order):
    left, top = place % columns * _WIDTH, place // columns * (height + _TITLE)
    heat = Image.fromarray(result.heat[k].astype(np.float32)).resize((_WIDTH, height))
    shown = _glow(np.asarray(small), np.asarray(heat))
    page.paste(Image.fromarray(shown), (left, top + _TITLE))
    title = f'{result.names[k]} {peaks[k]:.2f}'.encode('ascii', 'replace').decode()
    draw.text((left + 2, top + 1), title[: _WIDTH // 6], fill='black')
  return page


def _glow(
  image: UInt8[np.ndarray, 'h w 3'], heat: Float[np.ndarray, 'h w']
) -> UInt8[np.ndarray, 'h w 3']:
  """Grey and dark where the heat is 0, the picture with some red where it is 1."""
  heat = np.clip(heat, 0, 1)[..., None]
  grey = image.mean(axis=2, keepdims=True) * 0.35
  red = np.array([255, 40, 0], np.float32)[None, None]
  warm = 0.65 * image + 0.35 * red
  return np.round((1 - heat) * grey + heat * warm).astype(np.uint8)
