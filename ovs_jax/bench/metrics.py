"""The metric path of an evaluation: pixels counted per second, and its memory.

`--variants='label map'` alone tells the memory that painting the label map of one image
takes, as the peak of the process.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.core.types import Int
from ovs_jax.evaluate.painting import paint
from ovs_jax.evaluate.tally import Tally
from ovs_jax.ops.confusion import confusion_matrix, count_pixels


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    classes: of the data set.
    height: of the image.
    width: of the image.
    segments: along the longer side of a label map; the prediction is shifted a little.
    proposals: that a label map is painted from.
  """

  classes: int = 847
  height: int = 1500
  width: int = 2000
  segments: int = 20
  proposals: int = 100


def build(options: Options) -> Workload:
  """Counting as the package does, its parts and alternatives, and painting."""
  generator = np.random.default_rng(0)
  label = _segments(options, generator)
  guess = np.roll(label, options.width // 250, axis=1)
  k = options.classes
  count = jax.jit(lambda p, t: confusion_matrix(p, t, k))
  on_device = (jnp.asarray(guess), jnp.asarray(label))
  variants = [
    Variant('package', lambda: count_pixels(guess, label, k)),
    Variant('on the device', lambda: count(*on_device)),
    Variant('np.bincount', lambda: _plain(guess, label, k)),
    Variant('image with boundary IoU', _image(guess, label, k)),
    Variant('label map', _painting(options, generator)),
  ]
  same = bool((np.asarray(count(*on_device)) == count_pixels(guess, label, k)).all())
  facts = {'device and host agree': same, 'classes': k}
  return Workload('pixels', label.size, variants, facts)


def _segments(
  options: Options, generator: np.random.Generator
) -> Int[np.ndarray, 'h w']:
  side = -(-options.width // options.segments)
  shape = (-(-options.height // side), options.segments)
  coarse = generator.integers(0, options.classes, shape)
  whole = coarse.repeat(side, axis=0).repeat(side, axis=1)
  return whole[: options.height, : options.width].astype(np.int32)


def _plain(
  guess: Int[np.ndarray, 'h w'], label: Int[np.ndarray, 'h w'], k: int
) -> Int[np.ndarray, 'n']:
  return np.bincount((guess * (k + 1) + label).reshape(-1), minlength=(k + 1) ** 2)


def _image(
  guess: Int[np.ndarray, 'h w'], label: Int[np.ndarray, 'h w'], k: int
) -> Callable[[], Any]:
  def run() -> Any:
    tally = Tally(k)
    tally.add('image', guess, label)
    return tally.matrix

  return run


def _painting(options: Options, generator: np.random.Generator) -> Callable[[], Any]:
  """From proposals at the papers' 640 pixels to labels at the image's size."""
  scale = 640 / min(options.height, options.width)
  content = (round(options.height * scale), round(options.width * scale))
  weights = generator.random((options.proposals, options.classes), np.float32)

  def run() -> Any:
    masks = jnp.broadcast_to(
      jnp.linspace(0, 1, content[1]), (options.proposals, *content)
    )
    return paint(weights, masks, content, (options.height, options.width))

  return run
