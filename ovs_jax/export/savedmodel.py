"""All programs as one SavedModel of TensorFlow, and a signature from photo to labels.

The signatures are the programs by their names. `serving_default` has what `run.py` does
around them in TensorFlow's own operations, but for tokens: it takes a photo of any size
that was exported and embeddings of names.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from jax.experimental import jax2tf

from ovs_jax.export.programs import Program
from ovs_jax.export.stablehlo import PLATFORMS

FOLDER = 'savedmodel'


def write_savedmodel(
  folder: pathlib.Path,
  parts: Sequence[Program],
  weights: Mapping[str, np.ndarray],
  about: Mapping[str, Any],
) -> None:
  """Writes `savedmodel` into a folder.

  Args:
    folder: of the artefact.
    parts: the programs.
    weights: arrays by path; they are stored once, as variables.
    about: the artefact's manifest.
  """
  module = tf.Module()
  variables = {path: tf.Variable(x, name=path) for path, x in weights.items()}
  module.weights = list(variables.values())
  signatures = {part.name: _signature(part, variables) for part in parts}
  serve = tf.function(
    _serving(signatures, about['photo']),
    autograph=False,
    input_signature=[
      tf.TensorSpec((None, None, 3), tf.uint8, name='photo'),
      tf.TensorSpec((None, about['names']['width']), tf.float32, name='names'),
    ],
  )
  signatures['serving_default'] = serve
  tf.saved_model.save(module, str(folder / FOLDER), signatures=signatures)


def _open_shape(shape: str) -> list[int | None]:
  sides = [side.strip() for side in shape.split(',')]
  return [int(side) if side.isdigit() else None for side in sides]


def _signature(part: Program, variables: Mapping[str, Any]) -> Any:
  """Returns a program as a function of TensorFlow with named inputs and outputs."""
  convert = jax2tf.convert(
    part.function,
    polymorphic_shapes=[None, *(f'({one.shape})' for one in part.inputs)],
    polymorphic_constraints=part.constraints,
    native_serialization_platforms=PLATFORMS,
    with_gradient=False,
  )
  own = {path: variables[path] for path in part.weights}

  def call(*inputs: Any) -> dict[str, Any]:
    found = convert(own, *inputs)
    return {one.name: x for one, x in zip(part.outputs, found, strict=True)}

  specs = [
    tf.TensorSpec(_open_shape(one.shape), one.dtype, name=one.name)
    for one in part.inputs
  ]
  return tf.function(call, autograph=False, input_signature=specs)


def _serving(
  signatures: Mapping[str, Any], about: Mapping[str, Any]
) -> Callable[[Any, Any], dict[str, Any]]:
  """Returns a function from a photo and embeddings to labels and confidence."""
  sizes = sorted(about['sizes'], key=np.prod)

  def padded(photo: Any, names: Any, small: Any, full: tuple[int, int]) -> Any:
    inside, size = tf.shape(small)[:2], tf.shape(photo)[:2]
    ends = [[0, full[0] - inside[0]], [0, full[1] - inside[1]], [0, 0]]
    shown = tf.pad(tf.ones_like(small, tf.bool), ends)
    fill = tf.constant(about['fill'], tf.float32)
    whole = tf.where(shown, tf.pad(tf.cast(small, tf.float32), ends), fill)
    encoded = signatures['image_{}x{}'.format(*full)](whole, inside)
    places = [
      x for i in (0, 1) for x in tiles(inside[i], size[i], full[i], about['tile'])
    ]
    real = tf.ones(tf.shape(names)[:1], tf.bool)
    found = signatures['label'](*encoded.values(), names, real, *places)
    labels, scores, sure = (
      found[k][: size[0], : size[1]] for k in ('labels', 'scores', 'confidence')
    )
    return tf.where(scores > 0, labels, -1), tf.where(scores > 0, sure, 0.0)

  def serve(photo: Any, names: Any) -> dict[str, Any]:
    small = resized(photo, about['shortest'], about['longest'])
    fits = [tf.reduce_all(tf.shape(small)[:2] <= list(size)) for size in sizes]
    some = tf.debugging.Assert(
      tf.reduce_any(fits), ['no size for photos of', tf.shape(photo)]
    )
    with tf.control_dependencies([some]):
      branch = tf.argmax(tf.cast(tf.stack(fits), tf.int32), output_type=tf.int32)
    labels, confidence = tf.switch_case(
      branch,
      [lambda size=tuple(size): padded(photo, names, small, size) for size in sizes],
    )
    return {'labels': labels, 'confidence': confidence}

  return serve


def resized(photo: Any, shortest: int, longest: int) -> Any:
  """Resizes as `run_parts.resized` does."""
  size = tf.cast(tf.shape(photo)[:2], tf.float64)
  sides = size * (shortest / tf.reduce_min(size))
  most = tf.reduce_max(sides)
  sides = tf.where(most > longest, sides * (longest / most), sides)
  sides = tf.maximum(tf.floor(sides + 0.5), 1)
  less = size - sides
  image = tf.cast(photo, tf.float64)
  rows = resize_table(size[0], sides[0])
  columns = resize_table(size[1], sides[1])

  def along(image: Any, axis: int) -> Any:
    text = 'oh,hwc->owc' if axis == 0 else 'ow,hwc->hoc'
    sums = tf.einsum(text, (rows, columns)[axis], image)
    return tf.clip_by_value(tf.floor((sums + 2.0**21) / 2.0**22), 0, 255)

  return tf.cond(
    less[0] > tf.maximum(2 * less[1], 0),
    lambda: along(along(image, 0), 1),
    lambda: along(along(image, 1), 0),
  )


def resize_table(size: Any, new: Any) -> Any:
  """Returns Pillow's weights (new, size) of its bilinear filter, in units of 2**-22."""
  scale = size / new
  reach = tf.maximum(scale, 1.0)
  centre = ((tf.range(new, dtype=tf.float64) + 0.5) * scale)[:, None]
  place = tf.range(size, dtype=tf.float64)[None]
  low, high = (
    tf.maximum(tf.floor(centre - reach + 0.5), 0),
    tf.floor(centre + reach + 0.5),
  )
  weights = tf.maximum(1 - tf.abs((place - centre + 0.5) * (1 / reach)), 0)
  weights = tf.where((place >= low) & (place < high), weights, 0)
  total = tf.cumsum(weights, axis=1)[:, -1:]
  return tf.floor(weights / total * 2.0**22 + 0.5)


def tiles(inside: Any, size: Any, full: int, tile: int) -> tuple[Any, Any]:
  """Returns what `run_parts.tiles` does, with spans of the whole axis."""
  count = -(-size // tile)
  scale = tf.cast(tf.cast(inside, tf.float64) / tf.cast(size, tf.float64), tf.float32)
  place = scale * (tf.range(tf.cast(size, tf.float32)) + 0.5) - 0.5
  place = tf.gather(tf.maximum(place, 0), tf.minimum(tf.range(count * tile), size - 1))
  low = tf.minimum(tf.cast(tf.floor(place), tf.int32), inside - 1)
  weight = (place - tf.cast(low, tf.float32))[:, None]
  high = tf.minimum(low + 1, inside - 1)
  matrix = tf.one_hot(low, full) * (1 - weight) + tf.one_hot(high, full) * weight
  return tf.zeros([count], tf.int32), tf.reshape(matrix, [count, tile, full])
