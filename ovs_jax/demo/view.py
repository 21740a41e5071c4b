"""What the browser gets of an answer: small arrays, which it tints the photo with.

Names are switched, the threshold and the opacity moved there, without this program.
"""

import base64
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

from ovs_jax.core.images import nearest
from ovs_jax.core.types import Float, Num, UInt8
from ovs_jax.demo.desk import Answer, Photo
from ovs_jax.inference.result import Segmentation
from ovs_jax.ops.colours import palette

LONGEST, LEAST = 1280, 800  # pixels of the longer side as it is shown
LEVELS = 100  # steps of confidence
_HEAT = 176  # pixels of a side of heat maps
_MAPS = 40  # of the names with the highest peaks


def shown(photo: Photo) -> dict[str, Any]:
  """Returns a photo of which nothing is known yet, as JSON."""
  height, width = photo.pixels.shape[:2]
  small = _small((height, width))
  return {
    'key': photo.key,
    'file': photo.path.name,
    'photo': _jpeg(photo.pixels, small),
    'size': [width, height],
    'shown': [small[1], small[0]],
    'names': [],
  }


def packed(answer: Answer, *, threshold: float) -> dict[str, Any]:
  """Returns an answer as JSON.

  `labels` (0 is no name, k + 1 name k) and `levels` (confidence in steps of 1 / 100,
  rounded down) are raw numbers of the shown size, deflated, in base64. `counts` are
  pixels of the whole photo: of each name, at each level; `sums` are the sums of their
  confidences. `heat` has probabilities in 0..255 for some names.

  Args:
    answer: with a threshold of 0.
    threshold: where it stands at first.
  """
  result = answer.result
  small = _small(result.labels.shape)
  levels = confidence_levels(result.confidence)
  labels = (result.labels + 1).clip(0).astype(np.uint16)
  return {
    **shown(answer.photo),
    'names': list(result.names),
    'colours': palette(len(result.names)).tolist(),
    'labels': _deflated(nearest(labels, small)),
    'levels': _deflated(nearest(levels, small)),
    'counts': _tally(result, levels).astype(int).tolist(),
    'sums': _tally(result, levels, result.confidence).round(4).tolist(),
    'heat': _heat(result),
    'threshold': threshold,
  }


def confidence_levels(
  confidence: Float[np.ndarray, 'h w'],
) -> UInt8[np.ndarray, 'h w']:
  """Returns how many hundredths a confidence has, so that 0.3 is 30."""
  # 0.3 as float32 is 0.30000001192: a product in float64 is not below 30.
  return np.floor(LEVELS * confidence.astype(np.float64)).astype(np.uint8)


def _tally(
  result: Segmentation,
  levels: UInt8[np.ndarray, 'h w'],
  weights: Float[np.ndarray, 'h w'] | None = None,
) -> Float[np.ndarray, 'k l']:
  """Returns the sum of weights, or the number of pixels, by name and level."""
  names, steps = len(result.names), LEVELS + 1
  known = result.labels >= 0
  place = result.labels[known].astype(np.int64) * steps + levels[known]
  given = None if weights is None else weights[known]
  found = np.bincount(place, given, minlength=names * steps)
  return found.reshape(names, steps).astype(np.float64)


def _small(size: tuple[int, int]) -> tuple[int, int]:
  scale = min(max(1.0, LEAST / max(size)), LONGEST / max(size))
  return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _deflated(array: Num[np.ndarray, 'h w']) -> str:
  little = array.astype(array.dtype.newbyteorder('<'))
  return base64.b64encode(zlib.compress(little.tobytes(), 6)).decode()


def _jpeg(pixels: UInt8[np.ndarray, 'h w 3'], size: tuple[int, int]) -> str:
  small = Image.fromarray(pixels)
  if small.size != size[::-1]:
    small = small.resize(size[::-1], Image.Resampling.LANCZOS, reducing_gap=2)
  file = io.BytesIO()
  small.save(file, 'jpeg', quality=90)
  return 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()


def _heat(result: Segmentation) -> dict[str, Any]:
  """Returns the heat maps of the names with the highest peaks; none without any."""
  maps = getattr(result, 'heat', None)
  if maps is None:
    return {}
  peaks = maps.reshape(len(maps), -1).max(axis=1)
  chosen = sorted(np.argsort(-peaks, kind='stable')[:_MAPS].tolist())
  step = -(-max(maps.shape[1:]) // _HEAT)
  found = {}
  for k in chosen:
    small = maps[k, ::step, ::step].astype(np.float32)
    levels = np.round(255 * small.clip(0, 1)).astype(np.uint8)
    found[str(k)] = {
      'size': [levels.shape[1], levels.shape[0]],
      'values': _deflated(levels),
      'peak': float(peaks[k]),
    }
  return found
