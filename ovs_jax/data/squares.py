"""Square views of pictures that are not square, for `tf.data`."""

import tensorflow as tf

from ovs_jax.data.transforms import Example, Transform


def centre(size: int) -> Transform:
  """Cuts out the central square of `image` and `label` and resizes both.

  The image by an antialiased bicubic filter to uint8, the label by nearest neighbours.
  Squares of that size stay as they are.
  """

  def apply(example: Example) -> Example:
    shape = tf.shape(example['image'])[:2]
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    image = example['image'][top : top + side, left : left + side]
    image = tf.cond(side == size, lambda: image, lambda: _cubic(image, size))
    image.set_shape((size, size, 3))
    label = example['label'][top : top + side, left : left + side]
    index = tf.range(size) * side // size
    label = tf.gather(tf.gather(label, index, axis=0), index, axis=1)
    label.set_shape((size, size))
    return {**example, 'image': image, 'label': label}

  return apply


def _cubic(image: tf.Tensor, size: int) -> tf.Tensor:
  resized = tf.image.resize(image, (size, size), method='bicubic', antialias=True)
  return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
