"""OVSeg as a Python object: encode a picture once, ask for names many times.

segmenter = Segmenter.load('checkpoints/ovseg')
picture = segmenter.encode('photo.jpg')
result = segmenter.segment(picture, 'red ball, grass')
result.overlay('photo.jpg').save('overlay.png')
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.files import Path
from ovs_jax.core.images import ImageLike, as_rgb, resize_shortest
from ovs_jax.core.lookup import lookup
from ovs_jax.core.tree import difference
from ovs_jax.core.types import Array, Bool, Float, Int, Params
from ovs_jax.models import clip, ovseg
from ovs_jax.models.maskformer import init_maskformer
from ovs_jax.ops import overlay
from ovs_jax.ops.ensemble import CLASSIFIERS, combine, label_map
from ovs_jax.text.templates import fill
from ovs_jax.text.tokenizer import tokenize
from ovs_jax.text.vocabulary import parse_names

NO_NAME = -1  # the label of pixels that no name was given
OTHERS = 'others'  # joins a single name: a softmax over one class is always 1
_BLOCK_FLOATS = 2**26  # 256 MB while labels are painted


@dataclasses.dataclass(frozen=True)
class Settings:
  """How pictures are segmented unless a call says otherwise.

  Attributes:
    shortest: the picture's shorter side for the network, in pixels.
    longest: limit of its longer side.
    templates: name of a set in `text.templates`.
    classifier: 'ensemble', 'clip' or 'proposer'; see `ops.ensemble.combine`.
    weight: of CLIP in the ensemble, 0..1.
  """

  shortest: int
  longest: int
  templates: str
  classifier: str
  weight: float

  def __post_init__(self) -> None:
    _check_method(self.classifier, self.weight)
    fill(self.templates, ())
    if not 1 <= self.shortest <= self.longest:
      raise ValueError(
        'the sides must be 1 <= shortest <= longest, got shortest '
        f'{self.shortest} and longest {self.longest}'
      )


@dataclasses.dataclass(frozen=True)
class EncodedImage:
  """A picture as the networks see it, whatever the names.

  Attributes:
    size: height and width of the picture.
    network_size: the same after resizing, without padding.
    encoded: proposals and their embeddings; masks without padding.
  """

  size: tuple[int, int]
  network_size: tuple[int, int]
  encoded: ovseg.Encoded


@dataclasses.dataclass(frozen=True)
class ProposalTable:
  """The proposals that show anything, one row each.

  Attributes:
    boxes: x0, y0, x1, y1 in the picture's pixels, exclusive ends.
    labels: the name each is given, or `NO_NAME`.
    proposer: the proposer's probabilities; a row lacks "no object" to sum to 1.
    clip: CLIP's probabilities. For a single name, a row lacks `OTHERS`.
  """

  boxes: Float[np.ndarray, 'n 4']
  labels: Int[np.ndarray, 'n']
  proposer: Float[np.ndarray, 'n k']
  clip: Float[np.ndarray, 'n k']


@dataclasses.dataclass(frozen=True)
class Segmentation:
  """What is where in a picture.

  Attributes:
    labels: indices into `names`, in the picture's size; `NO_NAME` where there is none.
    names: as they were asked for.
    scores: of the label of each pixel, 0 where there is none. They are sums over
      proposals and compare pixels of one picture; they are not probabilities.
    proposals: see `ProposalTable`.
  """

  labels: Int[np.ndarray, 'h w']
  names: tuple[str, ...]
  scores: Float[np.ndarray, 'h w']
  proposals: ProposalTable

  def shares(self) -> dict[str, float]:
    """Returns the share of the picture that each name has, 0..1."""
    areas = overlay.shares(self.labels, len(self.names))
    return dict(zip(self.names, areas.tolist(), strict=True))

  def overlay(self, image: ImageLike, *, alpha: float = 0.55) -> Image.Image:
    """Draws the labels over the picture that was segmented, with a legend."""
    return overlay.overlay(as_rgb(image), self.labels, self.names, alpha=alpha)


class Segmenter:
  """A model, ready to segment. It keeps the embeddings of all names it was asked."""

  def __init__(
    self, config: ovseg.OvSegConfig, params: Params, *, settings: Settings
  ) -> None:
    """Puts the parameters on the default device."""
    self.config = config
    self.settings = settings
    self._params = jax.tree.map(jnp.asarray, dict(params))
    self._text: dict[tuple[str | tuple[str, ...], str], np.ndarray] = {}

  @classmethod
  def load(
    cls,
    directory: Path,
    *,
    classifier: str | None = None,
    weight: float | None = None,
    templates: str | None = None,
    shortest: int | None = None,
    longest: int | None = None,
  ) -> 'Segmenter':
    """Reads an OVSeg checkpoint.

    Args:
      directory: see `core.checkpoint.load_model`.
      classifier: this and the others replace the checkpoint's; see `Settings`.
      weight: see `Settings`.
      templates: see `Settings`.
      shortest: see `Settings`.
      longest: see `Settings`.

    Raises:
      FileNotFoundError: there is no such directory.
      ValueError: it is not a whole OVSeg checkpoint, or a setting is unknown.
    """
    params, stored = load_model(directory, kind='ovseg')
    given = {
      'classifier': classifier,
      'weight': weight,
      'templates': templates,
      'shortest': shortest,
      'longest': longest,
    }
    try:
      config = ovseg.OvSegConfig.from_dict(stored)
      defaults = {**stored['test'], **stored}
      settings = {
        key: defaults[key] if value is None else value for key, value in given.items()
      }
    except (KeyError, TypeError) as error:
      raise ValueError(
        f'the checkpoint {directory} does not describe an OVSeg model ({error!r}); '
        'write it again with this version'
      ) from error
    _check_params(config, params, what=f'the checkpoint {directory}')
    return cls(config, params, settings=Settings(**settings))

  def encode(self, image: ImageLike) -> EncodedImage:
    """Runs all of the networks that do not depend on names.

    Compiles for each new size; sizes are rounded up to few (`models.content.SIDES`).

    Args:
      image: a path, a Pillow image or an array; see `core.images.as_rgb`.
    """
    image = as_rgb(image)
    small = resize_shortest(
      image, shortest=self.settings.shortest, longest=self.settings.longest
    )
    h, w = small.shape[:2]
    encoded = _encode(
      self.config,
      self._params,
      ovseg.pad_to_bucket(jnp.asarray(small)),
      jnp.array([h, w]),
    )
    encoded = dataclasses.replace(encoded, masks=encoded.masks[:, :h, :w])
    return EncodedImage(image.shape[:2], (h, w), encoded)

  def embed_names(
    self, names: str | Iterable[str], *, templates: str | Sequence[str] | None = None
  ) -> Float[np.ndarray, 'k d']:
    """Returns the L2-normalised embeddings of names, from memory where it has them.

    Args:
      names: 'red ball, grass', or one string per name.
      templates: name of a set, or sentences with a '{}'; None takes the settings'.

    Raises:
      ValueError: names are none, blank or repeated, or too long for CLIP.
    """
    names = parse_names(names)
    templates = self.settings.templates if templates is None else templates
    key = templates if isinstance(templates, str) else tuple(templates)
    new = [name for name in names if (key, name) not in self._text]
    if new:
      length = self.config.clip.context_length
      rows = clip.encode_prompts(
        self.config.clip,
        self._params['clip'],
        fill(key, new),
        functools.partial(tokenize, context_length=length),
      )
      self._text.update(zip([(key, name) for name in new], rows, strict=True))
    return np.stack([self._text[key, name] for name in names])

  def segment(
    self,
    encoded: EncodedImage,
    names: str | Iterable[str],
    *,
    classifier: str | None = None,
    weight: float | None = None,
    templates: str | Sequence[str] | None = None,
  ) -> Segmentation:
    """Gives every pixel the best of the names.

    A single name competes with 'others', and pixels that the latter wins get no name.
    So do all pixels if no proposal shows anything.

    Args:
      encoded: what `encode` returned.
      names: 'red ball, grass', or one string per name.
      classifier: None takes the settings'; see `ops.ensemble.combine`.
      weight: of CLIP in the ensemble, 0..1; None takes the settings'.
      templates: as in `embed_names`.

    Raises:
      ValueError: names are none, blank or repeated, or too long for CLIP; or the
        classifier, weight or templates are unknown.
    """
    names = parse_names(names)
    classifier = self.settings.classifier if classifier is None else classifier
    weight = self.settings.weight if weight is None else weight
    _check_method(classifier, weight)
    classes = names
    if len(names) == 1 and names[0].lower() != OTHERS:
      classes = (*names, OTHERS)
    text = self.embed_names(classes, templates=templates)
    image = encoded.encoded
    # The masks play no part here, and without them their size needs no compilation.
    weights, proposer, by_clip = _weigh(
      dataclasses.replace(image, masks=image.masks[:, :1, :1]),
      _pad_rows(text, _bucket(len(text))),
      jnp.arange(_bucket(len(text))) < len(text),
      classifier=classifier,
      weight=float(weight),
    )
    labels, scores = self._paint(encoded, weights, len(names))
    best = np.asarray(jnp.argmax(weights, axis=1))
    table = ProposalTable(
      boxes=_original_boxes(encoded),
      labels=np.where(best < len(names), best, NO_NAME).astype(np.int32),
      proposer=np.asarray(proposer)[:, : len(names)],
      clip=np.asarray(by_clip)[:, : len(names)],
    )
    return Segmentation(labels, names, scores, _rows(table, np.asarray(image.valid)))

  def _paint(
    self, encoded: EncodedImage, weights: Float[Array, 'q k'], count: int
  ) -> tuple[Int[np.ndarray, 'h w'], Float[np.ndarray, 'h w']]:
    """Labels and scores of all pixels; labels from `count` on become `NO_NAME`."""
    masks = encoded.encoded.masks
    if not bool(encoded.encoded.valid.any()):
      return np.full(encoded.size, NO_NAME, np.int32), np.zeros(
        encoded.size, np.float32
      )
    row = encoded.size[1] * (weights.shape[1] + 2 * masks.shape[0])
    block = min(max(_BLOCK_FLOATS // row, 1), 128)
    labels, scores = label_map(weights, masks, encoded.size, block=block)
    # Padded classes have weight 0, and so never beat a score above 0.
    named = (labels < count) & (scores > 0)
    return np.where(named, labels, NO_NAME), np.where(named, scores, np.float32(0))


_encode = functools.partial(jax.jit, static_argnums=0)(ovseg.encode_image)


@functools.partial(jax.jit, static_argnames=('classifier', 'weight'))
def _weigh(
  encoded: ovseg.Encoded,
  text: Float[Array, 'k d'],
  real: Bool[Array, 'k'],
  *,
  classifier: str,
  weight: float,
) -> tuple[Float[Array, 'q k'], Float[Array, 'q k'], Float[Array, 'q k']]:
  """Class weights of the proposals, and both classifiers' probabilities.

  Args:
    encoded: of one image.
    text: L2-normalised class embeddings, padded with zeros.
    real: which rows of `text` are not padding; the others get 0 throughout.
    classifier: see `combine`.
    weight: see `combine`.
  """
  proposer, by_clip = ovseg.classify(encoded, text)
  with_none = jnp.append(real, True)
  proposer = jnp.where(with_none[None], proposer, -jnp.inf)
  by_clip = jnp.where(real[None], by_clip, -jnp.inf)
  weights = combine(
    proposer, by_clip, encoded.valid, classifier=classifier, weight=weight
  )
  # Invalid proposals count as 1 in CLIP's place, and 0 ** 0 is 1.
  weights = jnp.where(real[None], weights, 0.0)
  return (
    weights,
    jax.nn.softmax(proposer, axis=1)[:, :-1],
    jax.nn.softmax(by_clip, axis=1),
  )


def _bucket(count: int) -> int:
  """Rounds up a number of classes: powers of 2 from 8 to 64, then multiples of 64."""
  if count > 64:
    return -(-count // 64) * 64
  return max(8, 1 << (count - 1).bit_length())


def _pad_rows(x: Float[np.ndarray, 'k d'], count: int) -> Float[Array, 'n d']:
  return jnp.asarray(np.pad(x, ((0, count - len(x)), (0, 0))))


def _original_boxes(encoded: EncodedImage) -> Float[np.ndarray, 'q 4']:
  (height, width), (h, w) = encoded.size, encoded.network_size
  scale = np.array([[width / w, height / h] * 2], np.float32)
  return np.asarray(encoded.encoded.boxes).astype(np.float32) * scale


def _rows(table: ProposalTable, keep: Bool[np.ndarray, 'q']) -> ProposalTable:
  values: Mapping[str, Any] = vars(table)
  return ProposalTable(**{key: value[keep] for key, value in values.items()})


def _check_params(config: ovseg.OvSegConfig, params: Params, *, what: str) -> None:
  def init(key: Array) -> Params:
    return {
      'proposer': init_maskformer(config.proposer, key),
      'clip': clip.init_clip(config.clip, key),
    }

  expected = jax.eval_shape(init, jax.random.key(0))
  if (problem := difference(expected, params, what=what)) is not None:
    raise ValueError(problem)


def _check_method(classifier: str, weight: float) -> None:
  lookup({name: name for name in CLASSIFIERS}, classifier, 'classifier')
  if not 0 <= weight <= 1:
    raise ValueError(f'the ensemble weight must lie in 0..1, got {weight}')
