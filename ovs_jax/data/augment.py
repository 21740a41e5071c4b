"""MaskFormer's augmentation for training: scale jitter, crop, colour, padding.

In the reference's order: resize, crop, colour, flip, pad. Like the other transforms,
these draw from `example['seed']`.
"""

import functools
from collections.abc import Sequence

import tensorflow as tf

from ovs_jax.core.types import void_of
from ovs_jax.data.transforms import Example, Transform

PAD_COLOUR = 128  # of images; labels are padded with void


def _uniform(example: Example, stream: int, count: int) -> tf.Tensor:
  """Returns `count` numbers in 0..1; each stream of an example has its own."""
  seed = example['seed'] + tf.constant([0, stream], example['seed'].dtype)
  return tf.random.stateless_uniform((count,), seed)


def scale_jitter(shortest: Sequence[int], longest: int) -> Transform:
  """Resizes to a shorter side drawn from `shortest`, the longer at most `longest`."""
  return jittered_crop(shortest, longest, 0)


def fixed_crop(size: int) -> Transform:
  """Cuts out a random square of `size` pixels, without a change of scale."""
  return jittered_crop((), 0, size)


def jittered_crop(shortest: Sequence[int], longest: int, size: int) -> Transform:
  """Resizes to a shorter side drawn from `shortest`, then cuts out a random square.

  The longer side becomes at most `longest`; a side shorter than `size` is kept whole.
  `image` is resized bilinearly and antialiased, and rounded to uint8; `label` with
  PyTorch's nearest neighbour. Only what is cut out is ever computed.

  Args:
    shortest: sides to draw from; empty leaves images at their size.
    longest: limit of the other side.
    size: of the square; 0 keeps the whole image.
  """

  def apply(example: Example) -> Example:
    shape = tf.shape(example['image'])[:2]
    full = shape
    if shortest:
      side = tf.constant(shortest[0], tf.float64)
      if len(shortest) > 1:
        index = tf.cast(_uniform(example, 3, 1)[0] * len(shortest), tf.int32)
        side = tf.gather(tf.constant(tuple(shortest), tf.float64), index)
      sides = tf.cast(shape, tf.float64)
      scale = side / tf.reduce_min(sides)
      scale = tf.minimum(scale, longest / tf.reduce_max(sides))
      full = tf.maximum(tf.cast(sides * scale + 0.5, tf.int32), 1)
    start, cut = tf.zeros_like(full), full
    if size:
      cut = tf.minimum(full, size)
      free = tf.cast(full - cut + 1, tf.float32)
      start = tf.cast(_uniform(example, 4, 2) * free, tf.int32)
      start = tf.minimum(start, full - cut)
    image = _resized_part(example['image'], full, start, cut)
    rows, columns = (
      (start[i] + tf.range(cut[i])) * shape[i] // full[i] for i in range(2)
    )
    label = tf.gather(tf.gather(example['label'], rows), columns, axis=1)
    return {**example, 'image': image, 'label': label}

  return apply


def _resized_part(
  image: tf.Tensor, full: tf.Tensor, start: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
  """Returns `size` pixels from `start` on of the image resized to `full`."""
  resized = tf.raw_ops.ScaleAndTranslate(
    images=image[None],
    size=size,
    scale=tf.cast(full, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32),
    translation=-tf.cast(start, tf.float32),
    kernel_type='triangle',
    antialias=True,
  )[0]
  resized.set_shape((None, None, 3))
  return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def copy_paste(share: float) -> Transform:
  """Puts the small things of all `others` into the scene, in front of what is there.

  Things are what a class covers in another scene, as in Ghiasi et al. (2021, "Simple
  Copy-Paste"); here those of at most `share` of its pixels, all of one scene moved by
  one shift of up to 3/8 of the sides. What lands outside is lost. The shift is drawn
  from the `seed` of the other scene.
  """

  def pasted(example: Example, other: Example) -> Example:
    image, label = example['image'], example['label']
    size = tf.shape(label)
    ids = tf.cast(other['label'], tf.int32)
    void = void_of(label.dtype.as_numpy_dtype)
    counts = tf.math.bincount(tf.reshape(ids, (-1,)), minlength=void + 1)
    limit = share * tf.cast(tf.size(ids), tf.float32)
    small = (tf.cast(counts, tf.float32) <= limit) & (tf.range(void + 1) != void)
    shift = (_uniform(other, 7, 2) * 2 - 1) * 0.375 * tf.cast(size, tf.float32)
    start = size - tf.cast(tf.round(shift), tf.int32)

    def moved(x: tf.Tensor) -> tf.Tensor:
      sides = tf.stack([size, 2 * size], axis=1)
      if len(x.shape) == 3:
        sides = tf.concat([sides, [[0, 0]]], axis=0)
      padded = tf.pad(x, sides)
      return padded[start[0] : start[0] + size[0], start[1] : start[1] + size[1]]

    on = moved(tf.gather(small, ids))
    return {
      **example,
      'image': tf.where(on[..., None], moved(other['image']), image),
      'label': tf.where(on, moved(other['label']), label),
    }

  def apply(example: Example) -> Example:
    scene = {name: value for name, value in example.items() if name != 'others'}
    return functools.reduce(pasted, example['others'], scene)

  return apply


def pad_square(size: int) -> Transform:
  """Pads `image` with grey and `label` with void at right and bottom.

  No mask covers the padding, so that it is a negative of all of them.
  """

  def apply(example: Example) -> Example:
    shape = tf.shape(example['image'])[:2]
    sides = [[0, size - shape[0]], [0, size - shape[1]]]
    image = tf.pad(example['image'], [*sides, [0, 0]], constant_values=PAD_COLOUR)
    void = void_of(example['label'].dtype.as_numpy_dtype)
    label = tf.pad(example['label'], sides, constant_values=void)
    image.set_shape((size, size, 3))
    label.set_shape((size, size))
    return {**example, 'image': image, 'label': label}

  return apply


def colour_jitter(example: Example) -> Example:
  """SSD's distortion: brightness, contrast, saturation and hue, each every second time.

  Contrast comes before saturation and hue or after them. Values are cut to bytes after
  each step. The reference's hues are whole pairs of degrees of OpenCV's; ours are
  fractions of the circle, which differ by rounding.
  """
  on = _uniform(example, 5, 5) < 0.5
  amount = _uniform(example, 6, 4)
  brightness, contrast = amount[0] * 64 - 32, 0.5 + amount[1]
  saturation = 0.5 + amount[2]
  hue = (tf.floor(amount[3] * 37) - 18) / 180

  def cut(x: tf.Tensor) -> tf.Tensor:
    return tf.floor(tf.clip_by_value(x, 0, 255))

  def contrasted(x: tf.Tensor) -> tf.Tensor:
    return tf.cond(on[1], lambda: cut(x * contrast), lambda: x)

  def turned(x: tf.Tensor) -> tf.Tensor:
    hsv = tf.image.rgb_to_hsv(x / 255)
    s = tf.where(on[2], tf.minimum(hsv[..., 1] * saturation, 1), hsv[..., 1])
    h = tf.where(on[3], tf.math.floormod(hsv[..., 0] + hue, 1.0), hsv[..., 0])
    y = tf.image.hsv_to_rgb(tf.stack([h, s, hsv[..., 2]], axis=-1))
    return tf.round(y * 255)

  def shifted(x: tf.Tensor) -> tf.Tensor:
    return tf.cond(on[2] | on[3], lambda: turned(x), lambda: x)

  x = tf.cast(example['image'], tf.float32)
  x = tf.cond(on[0], lambda: cut(x + brightness), lambda: x)
  x = tf.cond(on[4], lambda: shifted(contrasted(x)), lambda: contrasted(shifted(x)))
  return {**example, 'image': tf.cast(x, tf.uint8)}


def only_classes(classes: Sequence[int]) -> Transform:
  """Makes the pixels of all other classes void in `label`: they were held out."""

  def apply(example: Example) -> Example:
    label = example['label']
    kept = tf.constant([i in set(classes) for i in range(max(classes) + 1)])
    known = tf.cast(label, tf.int32) <= max(classes)
    index = tf.where(known, tf.cast(label, tf.int32), 0)
    void = tf.constant(void_of(label.dtype.as_numpy_dtype), label.dtype)
    return {**example, 'label': tf.where(known & tf.gather(kept, index), label, void)}

  return apply
