"""What happens to a pair's crop and mask before CLIP sees them."""

import math

import tensorflow as tf

from ovs_jax.data.transforms import Example, Transform

_TRIES = 10


def whole_box(example: Example) -> Example:
  """Takes the box for the mask: nothing is filled, no patch is replaced."""
  return {**example, 'mask': tf.ones_like(example['mask'])}


def resized_crop(area: tuple[float, float], ratio: tuple[float, float]) -> Transform:
  """torchvision's RandomResizedCrop on the square that the crop becomes.

  The crop is squashed to a square later; here the part that it would cut out of that
  square is cut out of the crop, rounded to its pixels. As there, ten draws are made,
  and if none fits the square, all of it is taken.

  Args:
    area: least and most share of the square's area.
    ratio: least and most width in units of the height; drawn evenly in its logarithm.
  """
  low, high = math.log(ratio[0]), math.log(ratio[1])

  def apply(example: Example) -> Example:
    draws = tf.random.stateless_uniform((4, _TRIES), example['seed'])
    areas = area[0] + (area[1] - area[0]) * draws[0]
    ratios = tf.exp(low + (high - low) * draws[1])
    sides = tf.stack([tf.sqrt(areas / ratios), tf.sqrt(areas * ratios)])  # 2 tries
    fits = tf.reduce_all(sides <= 1, axis=0)
    first = tf.argmax(tf.cast(fits, tf.int32))
    side = tf.where(tf.reduce_any(fits), sides[:, first], tf.ones(2))
    offset = draws[2:, first] * (1 - side)
    shape = tf.cast(tf.shape(example['image'])[:2], tf.float32)
    start = tf.cast(tf.round(offset * shape), tf.int32)
    stop = tf.cast(tf.round((offset + side) * shape), tf.int32)
    stop = tf.maximum(stop, start + 1)
    cropped = dict(example)
    for name in ('image', 'mask'):
      cropped[name] = example[name][start[0] : stop[0], start[1] : stop[1]]
    return cropped

  return apply


def to_bytes(example: Example) -> Example:
  """Rounds `image` (0..255) and `mask` (0 or 1) to uint8."""
  image = tf.clip_by_value(tf.round(example['image']), 0, 255)
  return {
    **example,
    'image': tf.cast(image, tf.uint8),
    'mask': tf.cast(example['mask'], tf.uint8),
  }
