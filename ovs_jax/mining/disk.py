"""What the pairs of a mining job will take on disk, told before the first is mined.

An estimate for photographs: an image has as many pairs as those of COCO have, and a
pixel as many bytes as in crops of their true masks (docs/results.md). Drawn scenes take
less.
"""

from collections.abc import Sequence

import numpy as np

from ovs_jax.core.images import shortest_size
from ovs_jax.data.crops import small_size
from ovs_jax.data.records import Broken, decode_example, encoded_examples
from ovs_jax.data.shards import Shards
from ovs_jax.settings import Mining

_SAMPLES = 16  # images whose sizes are looked at
_SPARE = 1.25  # what estimates of an image's pairs and their bytes may be short of
# Pairs of 118,287 images of COCO: 965,036 of classes; 442,117 of the nouns of one
# caption and 1.34 million of five (OVSeg, table 2), which a power lies between.
_OF_CLASSES, _OF_CAPTION, _POWER = 8.16, 3.74, 0.69
# Shares of an image's height and width that crops of true masks have, in eight parts.
_SHARES = (
  *((0.10, 0.05), (0.14, 0.19), (0.18, 0.39), (0.31, 0.45)),
  *((0.38, 0.57), (0.46, 0.67), (0.60, 0.81), (0.87, 0.93)),
)
_BYTES_OF_PIXEL = {'png': 1.55, 'jpeg': 0.34}
_REST = 3000  # bytes of a pair's mask and what else its record has


def pairs_of_image(config: Mining) -> float:
  """Returns how many pairs an image is expected to have, by the section `mining`."""
  if config.nouns == 'classes':
    return _OF_CLASSES
  return _OF_CAPTION * config.captions**_POWER


def bytes_of_pair(config: Mining, sizes: Sequence[tuple[int, int]]) -> float:
  """Returns how many bytes a pair is expected to take, on average.

  Args:
    config: the section `mining`.
    sizes: height and width of some images, before mining resizes them.
  """
  pixels = []
  for h, w in sizes:
    if config.shortest:
      h, w = shortest_size(h, w, config.shortest, config.longest)
    for share_h, share_w in _SHARES:
      crop = (max(round(share_h * h), 1), max(round(share_w * w), 1))
      pixels.append(np.prod(small_size(*crop, config.crop_shortest)))
  return _BYTES_OF_PIXEL[config.crop_format] * float(np.mean(pixels)) + _REST


def megabytes(config: Mining, shards: Shards) -> int:
  """Returns what all pairs of some images are expected to take, in 2**20 bytes.

  Args:
    config: the section `mining`.
    shards: the images, of which a few are decoded.
  """
  positions = np.arange(len(shards))[:: max(len(shards) // _SAMPLES, 1)]
  found = (decode_example(shards, x) for x in encoded_examples(shards, positions))
  sizes = [x['image'].shape[:2] for x in found if not isinstance(x, Broken)]
  return megabytes_of(config, len(shards), sizes) if sizes else 0


def megabytes_of(config: Mining, images: int, sizes: Sequence[tuple[int, int]]) -> int:
  """Returns what the pairs of so many images are expected to take, in 2**20 bytes.

  Args:
    config: the section `mining`.
    images: their number.
    sizes: height and width of some of them.
  """
  pairs = images * pairs_of_image(config)
  return round(_SPARE * pairs * bytes_of_pair(config, sizes) / 2**20)
