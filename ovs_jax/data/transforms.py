"""Plain functions from example to example, for `tf.data`.

Every random choice is drawn from `example['seed']`, so that an example's fate depends
on (seed, epoch, index) alone and a resumed run repeats it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ovs_jax.core.types import void_of
from ovs_jax.ops.regions import CLIP_MEAN

Example = dict[str, Any]
Transform = Callable[[Example], Example]
# For all that `tf.data` runs: nothing here branches on tensors in Python, so that
# there is nothing to convert, and no source code that would have to be found.
as_written = tf.autograph.experimental.do_not_convert


def chain(transforms: Sequence[Transform]) -> Transform:
  """Applies the transforms in order."""

  @as_written
  def apply(example: Example) -> Example:
    for transform in transforms:
      example = transform(example)
    return example

  return apply


def decode(example: Example) -> Example:
  """Decodes PNG or JPEG bytes: `image` to (h, w, 3), other maps to (h, w), uint8."""
  decoded = dict(example)
  for name in ('image', 'label', 'mask'):
    if name in example and example[name].dtype == tf.string:
      channels = 3 if name == 'image' else 1
      image = tf.io.decode_image(example[name], channels, expand_animations=False)
      image.set_shape((None, None, channels))
      decoded[name] = image if channels == 3 else image[..., 0]
  return decoded


def keep(*names: str) -> Transform:
  """Drops everything but the named fields."""
  return lambda example: {name: example[name] for name in names}


def squash(size: int) -> Transform:
  """Resizes `image` and `label` to a square, without keeping the aspect ratio.

  The same distortion as a region's crop. The image is antialiased and stays uint8, the
  label has PyTorch's nearest neighbours.
  """

  def apply(example: Example) -> Example:
    image = tf.image.resize(example['image'], (size, size), antialias=True)
    image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    squashed = {**example, 'image': image}
    if 'label' in example:
      shape = tf.shape(example['label'])
      rows, columns = (tf.range(size) * shape[i] // size for i in range(2))
      label = tf.gather(tf.gather(example['label'], rows), columns, axis=1)
      label.set_shape((size, size))
      squashed['label'] = label
    return squashed

  return apply


def random_crop(minimum: float) -> Transform:
  """Cuts a random box out of `image` (and `mask`), of at least this share of each side.

  torchvision's RandomResizedCrop with scale (minimum^2, 1), without its resize.
  """

  def apply(example: Example) -> Example:
    shape = tf.shape(example['image'])[:2]
    draws = tf.random.stateless_uniform((4,), example['seed'])
    share = minimum + (1 - minimum) * draws[:2]
    size = tf.cast(tf.round(share * tf.cast(shape, tf.float32)), tf.int32)
    size = tf.clip_by_value(size, 1, shape)
    offset = tf.cast(draws[2:] * tf.cast(shape - size + 1, tf.float32), tf.int32)
    offset = tf.minimum(offset, shape - size)
    cropped = dict(example)
    for name in ('image', 'mask'):
      if name in example:
        y, x = offset[0], offset[1]
        cropped[name] = example[name][y : y + size[0], x : x + size[1]]
    return cropped

  return apply


def random_flip(example: Example) -> Example:
  """Mirrors `image` and `label` horizontally, every second time."""
  seed = example['seed'] + tf.constant([0, 1], example['seed'].dtype)
  flip = tf.random.stateless_uniform((), seed) < 0.5
  flipped = dict(example)
  for name in ('image', 'label'):
    if name in example:
      flipped[name] = tf.cond(
        flip, lambda x=example[name]: tf.reverse(x, [1]), lambda x=example[name]: x
      )
  return flipped


def random_caption(example: Example) -> Example:
  """Draws one of `captions` as `text`."""
  count = tf.shape(example['captions'])[0]
  seed = example['seed'] + tf.constant([0, 2], example['seed'].dtype)
  index = tf.random.stateless_uniform((), seed, 0, count, tf.int32)
  return {**example, 'text': example['captions'][index]}


def label_targets(max_targets: int) -> Transform:
  """Lists the classes in `label`, each of which is one of MaskFormer's targets.

  Adds `ids` (t,) int32 and `valid` (t,) bool, padded to `max_targets`; of more classes
  than that the lowest ids stay. `ops.targets.target_masks` makes their masks.
  """

  def apply(example: Example) -> Example:
    label = tf.cast(example['label'], tf.int32)
    counts = tf.math.bincount(tf.reshape(label, (-1,)))
    ids = tf.cast(tf.where(counts > 0)[:, 0], tf.int32)  # ascending
    void = void_of(example['label'].dtype.as_numpy_dtype)
    ids = tf.boolean_mask(ids, ids != void)[:max_targets]
    count = tf.shape(ids)[0]
    ids = tf.pad(ids, [[0, max_targets - count]])
    ids.set_shape((max_targets,))
    return {**example, 'ids': ids, 'valid': tf.range(max_targets) < count}

  return apply


def region_crop(size: int, fill: str) -> Transform:
  """Makes `image` and `mask` what `ops.regions.crop_regions` makes of a proposal.

  The inputs are cut out already (h w 3 and h w); this fills the background, resizes
  the image with the same bicubic weights and the mask with nearest neighbours.
  """

  def apply(example: Example) -> Example:
    image = tf.cast(example['image'], tf.float32)
    mask = tf.cast(example['mask'] > 0, tf.float32)
    colour = {'mean': 255 * tf.constant(CLIP_MEAN), 'zero': tf.zeros((3,))}
    if fill != 'none':
      image = image * mask[..., None] + colour[fill] * (1 - mask[..., None])
    shape = tf.shape(mask)
    rows, columns = _cubic_matrix(shape[0], size), _cubic_matrix(shape[1], size)
    image = tf.einsum('sh,hwc,tw->stc', rows, image, columns)
    mask = tf.gather(mask, tf.range(size) * shape[0] // size, axis=0)
    mask = tf.gather(mask, tf.range(size) * shape[1] // size, axis=1)
    image.set_shape((size, size, 3))
    mask.set_shape((size, size))
    return {**example, 'image': image, 'mask': mask}

  return apply


def _cubic_matrix(num_in: tf.Tensor, num_out: int) -> tf.Tensor:
  """The weights (o, i) of `ops.resize.cubic_matrix`, for the host."""
  scale = tf.cast(num_in, tf.float32) / num_out
  position = (tf.range(num_out, dtype=tf.float32) + 0.5) * scale - 0.5
  base = tf.floor(position)
  t, a = position - base, -0.75
  distances = tf.stack([t + 1, t, 1 - t, 2 - t], axis=1)
  near = ((a + 2) * distances - (a + 3)) * distances**2 + 1
  far = ((a * distances - 5 * a) * distances + 8 * a) * distances - 4 * a
  weights = tf.where(distances <= 1, near, far)
  taps = tf.cast(base, tf.int32)[:, None] + tf.range(-1, 3)[None]
  taps = tf.clip_by_value(taps, 0, num_in - 1)
  return tf.reduce_sum(tf.one_hot(taps, num_in) * weights[..., None], axis=1)
