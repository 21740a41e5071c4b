"""Zero-shot classification: which of some names fits a whole picture best.

classifier = Classifier.load('checkpoints/clip')
for name, share in classifier.classify('photo.jpg', 'cat, dog').items():
  print(f'{name}: {share:.3f}')
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path
from ovs_jax.core.images import ImageLike, as_rgb, central_square, squashed
from ovs_jax.core.types import Array, Float, Params, UInt8
from ovs_jax.inference.named import located
from ovs_jax.inference.names import NameEmbedder
from ovs_jax.models import clip
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.models.stored import load
from ovs_jax.ops.regions import Pixels
from ovs_jax.text.classes import Names, parse_classes
from ovs_jax.text.templates import sentences


class Classifier:
  """A CLIP that classifies pictures; it keeps the embeddings of all names so far."""

  def __init__(
    self,
    config: clip.ClipConfig,
    params: Params,
    *,
    templates: str | Sequence[str] = 'single',
    text_cache: Path | None = None,
  ) -> None:
    """Puts the parameters on the default device.

    Args:
      config: of the CLIP whose `params` are given.
      params: the whole CLIP's parameters.
      templates: name of a set in `text.templates`, or sentences with a '{}'.
      text_cache: folder of embedded names, 'off', or None for the default one.
      accept_licence: whether to fetch a model whose licence restricts its use.
    """
    sentences(templates)
    self.config = config
    self.templates = templates
    self._params = jax.tree.map(jnp.asarray, dict(params))
    self._embedder = NameEmbedder(config, self._params, cache=text_cache)

  @classmethod
  def load(
    cls,
    directory: Path,
    *,
    templates: str | Sequence[str] | None = None,
    text_cache: Path | None = None,
    accept_licence: bool = False,
  ) -> 'Classifier':
    """Reads a CLIP checkpoint, or the CLIP of an OVSeg checkpoint.

    Args:
      directory: a model directory, or a run, of which the newest step is taken; or a
        name such as 'ViT-B/16' (docs/checkpoints.md), whose model is fetched once.
      templates: name of a set in `text.templates`, or sentences with a '{}'; None takes
        'single', "a photo of a {}.".
      text_cache: folder of embedded names, 'off', or None for the default one.

    Raises:
      FileNotFoundError: there is no such directory.
      ValueError: it has no whole CLIP, or the templates are wrong.
    """
    directory = located(directory, accept_licence=accept_licence)
    found = load(directory, kinds=('clip', 'ovseg'))
    config, params = found.config, found.params
    if found.kind == 'ovseg':
      config.check_one_clip(directory)
      config, params = config.clip, params['clip']
    templates = 'single' if templates is None else templates
    return cls(config, params, templates=templates, text_cache=text_cache)

  def classify(
    self,
    image: ImageLike,
    names: Names,
    *,
    templates: str | Sequence[str] | None = None,
    synonyms: str = 'mean',
  ) -> dict[str, float]:
    """Returns the probability of each name, most probable first.

    They are the softmax, over these names alone, of the cosines times the model's own
    `exp(logit_scale)`. A CLIP whose scores are sigmoids (SigLIP) gives each name one of
    its own, whatever the others are: that of the same plus `logit_bias`. Mask prompts
    take no part.

    Args:
      image: a path, a Pillow image, or an array of uint8 or of floats in 0..1.
      names: 'red ball, grass'; or one string per name; or {shown name: words}.
      templates: name of a set, or sentences with a '{}'; None takes the classifier's.
      synonyms: 'mean' of a name's words, 'max' (the best word counts), or 'paper' (one
        string with commas).

    Raises:
      FileNotFoundError: there is no such image.
      ValueError: the image cannot be read, or an argument is wrong.
    """
    classes = parse_classes(names)
    alone = self.config.scores == 'sigmoid'
    if len(classes) == 1 and not alone:
      raise UserError(
        f'the probability of a single name is always 1; give {classes.names[0]!r} '
        'something to compete with'
      )
    templates = self.templates if templates is None else templates
    rows, owner = self._embedder.classes(classes, templates, synonyms)
    pixels = preprocess(as_rgb(image), self.config.image_size, self.config.pixels)
    picture, scale = embed(self.config, self._params, pixels)
    cosines = rows @ np.asarray(picture)
    logits = np.full(len(classes), -np.inf, np.float32)
    np.maximum.at(logits, owner, float(scale) * cosines)
    shares = probabilities(logits, self._params.get('logit_bias')).tolist()
    order = np.argsort([-share for share in shares], kind='stable')
    return {classes.names[k]: shares[k] for k in order}


def probabilities(
  logits: Float[np.ndarray, 'k'], bias: Float[Any, ''] | None
) -> Float[np.ndarray, 'k']:
  """Returns sigmoids where there is a bias, and else the softmax."""
  if bias is not None:
    return 1 / (1 + np.exp(-(logits.astype(np.float64) + float(bias))))
  shares = np.exp(logits - logits.max())
  return shares / shares.sum()


def preprocess(
  image: UInt8[np.ndarray, 'h w 3'], size: int, pixels: Pixels
) -> Float[np.ndarray, 's s 3']:
  """Prepares a picture as a CLIP wants it.

  Args:
    image: RGB, 0..255.
    size: of the model's input.
    pixels: how it is resized and normalised.

  Returns:
    The central square of the picture, or all of it squashed, in units of `pixels`.
  """
  make = squashed if pixels.resize == 'squash' else central_square
  square = make(image, size, pixels.interpolation)
  mean, std = np.float32(pixels.mean), np.float32(pixels.std)
  return (square.astype(np.float32) / 255 - mean[None, None]) / std[None, None]


@functools.partial(jax.jit, static_argnums=0)
def embed(
  config: clip.ClipConfig, params: Params, pixels: Float[Array, 's s 3']
) -> tuple[Float[Array, 'd'], Float[Array, '']]:
  """Returns a picture's L2-normalised embedding and `exp(logit_scale)`."""
  row = encode_images(config, params, pixels[None])
  return clip.unit(row)[0], jnp.exp(params['logit_scale'])
