"""Pictures for CLIPSeg: the image to segment, and examples of what to look for."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Bool, Float, UInt8

# How the released models were shown examples ("crop_blur_highlight352").
BLUR_SIDE, BLUR_SIGMA = 15, 3.0
DARKEN = 0.1  # factor on the background
CONTEXT = 0.1  # of the box's sides that are added on each side


def squash(
  image: UInt8[np.ndarray, 'h w 3'], size: tuple[int, int]
) -> UInt8[np.ndarray, 'H W 3']:
  """Resizes to (height, width) without keeping the aspect ratio.

  Pillow's antialiased bilinear filter on 8 bits, before normalising: the order of
  Hugging Face's processor. The original normalises first, which differs by 1e-2 in
  the logits.
  """
  if image.shape[:2] == tuple(size):
    return image
  resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
  return np.asarray(resized)


def visual_prompt(
  image: Float[np.ndarray, 'h w 3'], mask: Bool[np.ndarray, 'h w'], size: int
) -> Float[np.ndarray, 's s 3']:
  """Makes an example picture say which of its objects is meant.

  The background is blurred and darkened, and the object's box cut out with some of
  its surroundings, padded to a square with zeros.

  Args:
    image: the example, normalised already: darkening draws towards the mean colour.
    mask: the object.
    size: side of the result, for CLIP's vision tower.

  Raises:
    ValueError: the mask is empty, or of another size than the image.
  """
  if mask.shape != image.shape[:2]:
    raise UserError(f'the mask has {mask.shape} pixels, the image {image.shape[:2]}')
  if not mask.any():
    raise UserError('the mask of the visual prompt is empty; it must mark an object')
  keep = mask[..., None].astype(np.float32)
  shown = image * keep + DARKEN * _blur(image) * (1 - keep)
  spans = [_span(mask.any(axis=axis), mask.shape[1 - axis]) for axis in (1, 0)]
  shown = shown[slice(*spans[0]), slice(*spans[1])]
  side = max(shown.shape[:2])
  pads = [((side - n) // 2, side - n - (side - n) // 2) for n in shown.shape[:2]]
  shown = np.pad(shown, (*pads, (0, 0)))
  nearest = np.arange(size) * side // size
  return shown[nearest][:, nearest].astype(np.float32)


def average(conditions: Sequence[Float[np.ndarray, 'd']]) -> Float[np.ndarray, 'd']:
  """Returns the mean of several conditions: examples, texts, or both."""
  if not len(conditions):
    raise UserError('no conditions given; expected at least one embedding')
  return np.mean(np.stack(list(conditions)), axis=0)


def _span(hit: Bool[np.ndarray, 'n'], limit: int) -> tuple[int, int]:
  """Returns the first and one past the last hit, widened by the context."""
  places = np.flatnonzero(hit)
  start, stop = int(places[0]), int(places[-1]) + 1
  margin = int(CONTEXT * (stop - start))
  return max(start - margin, 0), min(stop + margin, limit)


def _blur(image: Float[np.ndarray, 'h w 3']) -> Float[np.ndarray, 'h w 3']:
  """Gaussian blur; the image goes on beyond its borders as in a mirror."""
  half = BLUR_SIDE // 2
  distance = np.arange(-half, half + 1)
  weights = np.exp(-0.5 * (distance / BLUR_SIGMA) ** 2)
  weights = (weights / weights.sum()).astype(np.float32)
  for axis in (0, 1):
    count = image.shape[axis]
    period = max(2 * (count - 1), 1)
    places = np.abs(np.arange(-half, count + half)) % period
    places = np.minimum(places, np.maximum(period - places, 0))
    wide = np.take(image, places, axis=axis)
    parts = [np.take(wide, i + np.arange(count), axis=axis) for i in range(BLUR_SIDE)]
    image = sum(w * part for w, part in zip(weights, parts, strict=True))
  return image
