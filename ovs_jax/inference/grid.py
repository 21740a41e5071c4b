"""Masks without a proposer: superpixels, merged while they look alike to CLIP.

Nothing is trained, and every CLIP has what it takes. CLIP sees the picture once and is
asked for each cell of a grid (`inference.one_pass`); SLIC (Achanta et al., 2012) makes
superpixels of the picture's colours and of these features, and Ward's criterion joins
neighbours until one region is left. What is there at some time on that way is a mask:
parts, things and what they belong to.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.mask_set import mask_set
from ovs_jax.core.types import Bool, Float, Int, Params, UInt8
from ovs_jax.inference import one_pass
from ovs_jax.inference.encode import EncodedImage
from ovs_jax.inference.given_masks import as_proposals
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.models import ovseg

PROPOSE = ('proposer', 'grid')  # what makes masks
_CELLS = 16  # of the grid, along the picture's shorter side
_SIDE = 256  # of the picture for superpixels, in pixels, the longer one
_PIXELS = 64  # of a superpixel, at least, on average
_SUPERPIXELS = 200
_LEAVES = 48  # regions from which on what is there is a mask; 46 more follow
_FEATURES = 8  # principal components of CLIP's features
_COLOURS = 0.5  # weight of colours beside these


class GridSystem(OvSegSystem):
  """A CLIP that segments by itself; or an OVSeg's, without its proposer."""

  kind = 'clip'
  abilities = ('masks',)

  def encode_all(
    self,
    images: Sequence[UInt8[np.ndarray, '_ _ 3']],
    *,
    window: int | None = None,
    overlap: float = 0.25,
  ) -> list[EncodedImage]:
    """Encodes pictures one by one; see `OvSegSystem.encode_all`.

    Raises:
      UserError: there is a window; superpixels are those of a whole picture.
    """
    del overlap
    if window is not None:
      raise UserError('masks of a grid are of a whole picture; leave window out')
    return [self._encode(image) for image in images]

  def _encode(self, image: UInt8[np.ndarray, 'h w 3']) -> EncodedImage:
    s = self.settings
    small = resize_shortest(image, shortest=s.shortest, longest=s.longest)
    masks = mask_set(grid_masks(self.config, self.params, small), small.shape[:2])
    padded, size = ovseg.pad_to_bucket(small), (int(small.shape[0]), small.shape[1])
    encoded = as_proposals(self.config, self.params, padded, size, masks)
    return EncodedImage(image.shape[:2], size, encoded)

  def by_clip_alone(self, encoded: Any) -> bool:
    """Always: there is no proposer."""
    del encoded
    return True


def grid_masks(
  config: ovseg.OvSegConfig, params: Params, picture: UInt8[np.ndarray, 'h w 3']
) -> Bool[np.ndarray, 'n h w']:
  """Returns masks of a picture, parts before what they belong to.

  Args:
    config: of the model; its first CLIP looks.
    params: of the model, with the subtree `clip`.
    picture: RGB, as large as the masks shall be.

  Raises:
    UserError: scikit-image is not installed; says how to.
  """
  features = cell_features(config.alone[0], params['clip'], picture)
  labels, rows = superpixels(picture, features)
  inside = merge(labels, rows)
  h, w = picture.shape[:2]
  whole = np.asarray(
    Image.fromarray(labels.astype(np.int32)).resize((w, h), Image.Resampling.NEAREST)
  )
  return inside[:, whole]


def cell_features(
  config: ovseg.OvSegConfig, params: Params, picture: UInt8[np.ndarray, 'h w 3']
) -> Float[np.ndarray, 'y x d']:
  """Returns what CLIP sees in each cell of a grid, L2-normalised.

  Args:
    config: of a model with one CLIP.
    params: of this CLIP.
    picture: RGB.
  """
  h, w = picture.shape[:2]
  y, x = one_pass.grid_of(config, (h, w))
  cell = max(min(h, w) / _CELLS, max(h, w) / (4 * _CELLS))
  rows, columns = (
    min(max(round(length / cell), 1), patches)
    for length, patches in zip((h, w), (y, x), strict=True)
  )
  at = np.arange(y)[:, None] * rows // y * columns + np.arange(x) * columns // x
  seen = at.reshape(1, -1) == np.arange(rows * columns)[:, None]
  found = np.asarray(one_pass.look(config, (y, x), params, jnp.asarray(picture), seen))
  found = found / np.linalg.norm(found, axis=1, keepdims=True)
  return found.reshape(rows, columns, -1)


def superpixels(
  picture: UInt8[np.ndarray, 'h w 3'], features: Float[np.ndarray, 'y x d']
) -> tuple[Int[np.ndarray, 'H W'], Float[np.ndarray, 's c']]:
  """Returns superpixels of a picture in a smaller size, and what is in them.

  Args:
    picture: RGB.
    features: of a grid over it.

  Returns:
    Labels from 0, and the mean colours and features of each.

  Raises:
    UserError: scikit-image is not installed; says how to.
  """
  try:
    from skimage.color import rgb2lab
    from skimage.segmentation import slic
  except ImportError as error:
    raise UserError(
      "masks of a grid take scikit-image: pip install 'ovs-jax[grid]', or pip install "
      '-r requirements/grid.txt in a checkout'
    ) from error
  h, w = picture.shape[:2]
  scale = min(_SIDE / max(h, w), 1.0)
  size = max(round(w * scale), 1), max(round(h * scale), 1)
  small = Image.fromarray(picture).resize(size, Image.Resampling.BOX)
  colours = _COLOURS * rgb2lab(np.asarray(small)) / 50
  stack = np.concatenate([colours, _enlarged(_principal(features), size)], axis=2)
  count = int(min(max(size[0] * size[1] // _PIXELS, 2), _SUPERPIXELS))
  labels = slic(
    stack, count, compactness=0.1, convert2lab=False, channel_axis=-1, start_label=0
  )
  _, labels = np.unique(labels, return_inverse=True)
  labels = labels.reshape(stack.shape[:2])
  amount = np.bincount(labels.ravel())
  means = [np.bincount(labels.ravel(), x.ravel()) for x in np.moveaxis(stack, 2, 0)]
  return labels, np.stack(means, axis=1) / amount[:, None]


def _principal(features: Float[np.ndarray, 'y x d']) -> Float[np.ndarray, 'y x c']:
  """Returns the first principal components, the first of deviation 1."""
  rows = features.reshape(-1, features.shape[2])
  rows = rows - rows.mean(axis=0)
  left, sizes, _ = np.linalg.svd(rows, full_matrices=False)
  found = (left * sizes)[:, :_FEATURES]
  found = found / max(found[:, 0].std(), 1e-6)
  return found.reshape(*features.shape[:2], -1)


def _enlarged(
  values: Float[np.ndarray, 'y x c'], size: tuple[int, int]
) -> Float[np.ndarray, 'h w c']:
  """Resizes each channel to a width and height, bilinearly."""
  enlarge = functools.partial(Image.Image.resize, size=size)
  planes = [
    np.asarray(enlarge(Image.fromarray(x), resample=Image.Resampling.BILINEAR))
    for x in np.moveaxis(values.astype(np.float32), 2, 0)
  ]
  return np.stack(planes, axis=2)


def merge(
  labels: Int[np.ndarray, 'h w'], rows: Float[np.ndarray, 's c']
) -> Bool[np.ndarray, 'n s']:
  """Joins neighbours by Ward's criterion; returns the regions that are masks.

  These are the last `_LEAVES` regions, and those that come of them, but for the whole
  picture. A single superpixel is a mask by itself.

  Args:
    labels: of the superpixels, from 0.
    rows: a description of each.
  """
  amount = np.bincount(labels.ravel()).astype(np.float64)
  inside = {i: np.eye(len(rows), dtype=bool)[i] for i in range(len(rows))}
  means, near = dict(enumerate(rows.astype(np.float64))), _neighbours(labels)
  sizes, found = dict(enumerate(amount)), []

  def cost(a: int, b: int) -> float:
    weight = sizes[a] * sizes[b] / (sizes[a] + sizes[b])
    return weight * float(np.sum((means[a] - means[b]) ** 2))

  costs = {(a, b): cost(a, b) for a in near for b in near[a] if a < b}
  if len(inside) <= _LEAVES:
    found += inside.values()
  while len(inside) > 2:
    a, b = min(costs, key=costs.__getitem__)
    new = max(means) + 1
    sizes[new] = sizes[a] + sizes[b]
    means[new] = (sizes[a] * means[a] + sizes[b] * means[b]) / sizes[new]
    inside[new] = inside.pop(a) | inside.pop(b)
    near[new] = (near.pop(a) | near.pop(b)) - {a, b}
    costs = {pair: x for pair, x in costs.items() if not {a, b} & set(pair)}
    for other in near[new]:
      near[other] = near[other] - {a, b} | {new}
      costs[other, new] = cost(other, new)
    if len(inside) == _LEAVES:
      found += inside.values()
    elif len(inside) < _LEAVES:
      found.append(inside[new])
  return np.stack(found)


def _neighbours(labels: Int[np.ndarray, 'h w']) -> dict[int, set[int]]:
  """Returns of each label those beside it."""
  found: dict[int, set[int]] = {int(i): set() for i in np.unique(labels)}
  for one, two in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
    pairs = np.unique(np.stack([one, two], axis=-1).reshape(-1, 2), axis=0)
    for a, b in pairs[pairs[:, 0] != pairs[:, 1]].tolist():
      found[a].add(b)
      found[b].add(a)
  return found
