"""OVSeg as a Python object: encode a picture once, ask for names many times.

segmenter = Segmenter.load('checkpoints/ovseg')
picture = segmenter.encode('photo.jpg')
result = segmenter.segment(picture, 'red ball, grass')
result.overlay('photo.jpg').save('overlay.png')
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax import prompted
from ovs_jax.core.checkpoint import load_config, load_model
from ovs_jax.core.files import Path
from ovs_jax.core.images import ImageLike, as_rgb, resize_shortest
from ovs_jax.core.lookup import lookup
from ovs_jax.core.tree import difference
from ovs_jax.core.types import Array, Bool, Float, Int, Params
from ovs_jax.models import clip, ovseg
from ovs_jax.models.class_text import NameEmbedder
from ovs_jax.models.mask_prompts import add_to_ovseg
from ovs_jax.models.maskformer import init_maskformer
from ovs_jax.ops.ensemble import CLASSIFIERS, label_map
from ovs_jax.segmentation import NO_NAME, ProposalTable, Segmentation
from ovs_jax.text.classes import Names, parse_background, parse_classes
from ovs_jax.text.templates import sentences
from ovs_jax.weighing import RULES, weigh

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
    sentences(self.templates)
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


class Segmenter:
  """A model, ready to segment. It keeps the embeddings of all names it was asked."""

  def __init__(
    self,
    config: ovseg.OvSegConfig,
    params: Params,
    *,
    settings: Settings,
    text_cache: Path | None = None,
  ) -> None:
    """Puts the parameters on the default device.

    Args:
      config: of the model whose `params` are given.
      params: with the subtrees `proposer` and `clip`.
      settings: the defaults of `segment`.
      text_cache: where embeddings of names are kept on disk: a directory, 'off', or
        None for the default; see `text.cache.cache_root`.
    """
    self.config = config
    self.settings = settings
    self._params = jax.tree.map(jnp.asarray, dict(params))
    self._embedder = NameEmbedder(config.clip, self._params['clip'], cache=text_cache)

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
    text_cache: Path | None = None,
    prompts: Path | None = None,
  ) -> Any:
    """Reads an OVSeg checkpoint; of a CLIPSeg or CoSeg, see `ovs_jax.prompted`.

    Args:
      directory: see `core.checkpoint.load_model`.
      classifier: this and the others replace the checkpoint's; see `Settings`.
      weight: see `Settings`.
      templates: see `Settings`.
      shortest: see `Settings`.
      longest: see `Settings`.
      text_cache: see `__init__`.
      prompts: directory of mask prompts for its CLIP; see `models.mask_prompts`.

    Raises:
      FileNotFoundError: there is no such directory.
      ValueError: it is not a whole OVSeg checkpoint, or a setting is unknown.
    """
    if load_config(directory).get('model') in prompted.KINDS:
      own = {'classifier': classifier, 'weight': weight, 'prompts': prompts}
      own |= {'shortest': shortest, 'longest': longest}
      return prompted.load(directory, own, templates=templates, text_cache=text_cache)
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
    config, params = add_to_ovseg(config, params, prompts)
    return cls(config, params, settings=Settings(**settings), text_cache=text_cache)

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
    self,
    names: Names,
    *,
    templates: str | Sequence[str] | None = None,
    synonyms: str = 'mean',
  ) -> Float[np.ndarray, 't d']:
    """Returns the L2-normalised embeddings of names, from memory or disk if it can.

    Args:
      names: see `segment`.
      templates: name of a set, or sentences with a '{}'; None takes the settings'.
      synonyms: see `segment`. With 'max' there is a row per word, else one per name.

    Raises:
      ValueError: names are none, blank or repeated, or too long for CLIP.
    """
    templates = self.settings.templates if templates is None else templates
    rows, _ = self._embedder.classes(parse_classes(names), templates, synonyms)
    return rows

  def segment(
    self,
    encoded: EncodedImage,
    names: Names,
    *,
    classifier: str | None = None,
    weight: float | None = None,
    templates: str | Sequence[str] | None = None,
    synonyms: str = 'mean',
    background: Names | None = None,
    threshold: float = 0.0,
    rule: str = 'pixels',
  ) -> Segmentation:
    """Gives every pixel the best of the names.

    A single name without background competes with 'others', and pixels that the latter
    wins get no name. So do all pixels if no proposal shows anything.

    Args:
      encoded: what `encode` returned.
      names: 'red ball, grass'; or one string per name; or {shown name: words}; or what
        `text.classes.read_names` read from a file.
      classifier: None takes the settings'; see `ops.ensemble.combine`.
      weight: of CLIP in the ensemble, 0..1; None takes the settings'.
      templates: as in `embed_names`.
      synonyms: what the words of a name do: 'mean' embeds the mean of their
        embeddings, with 'max' the best word counts, and 'paper' embeds them as one
        string, "toilet, can".
      background: names that compete too; pixels that they win get no name.
      threshold: pixels whose score is below it get no name; see `Segmentation.scores`.
      rule: how proposals become labels; see `weighing.RULES`.

    Raises:
      ValueError: names are none, blank, repeated, or too long for CLIP; or an option
        is unknown, out of range, or does not go with the rule.
    """
    classes = parse_classes(names)
    behind = parse_background(background, classes)
    classifier, weight = self._method(classifier, weight, rule)
    _check_threshold(threshold)
    asked = choosing = classes + behind
    if len(asked) == 1 and classes.names[0].lower() != OTHERS:
      asked = asked + parse_classes(OTHERS)
    templates = self.settings.templates if templates is None else templates
    rows, owner = self._embedder.classes(asked, templates, synonyms)
    weighed = weigh(
      encoded.encoded,
      rows,
      owner,
      choosing=len(choosing),
      rule=rule,
      classifier=classifier,
      weight=weight,
    )
    return self._result(encoded, classes.names, weighed, rule, threshold)

  def _result(
    self,
    encoded: EncodedImage,
    names: tuple[str, ...],
    weighed: tuple[Float[Array, 'q k'], Float[Array, 'q k'], Float[Array, 'q k']],
    rule: str,
    threshold: float,
  ) -> Segmentation:
    """Paints what `weigh` returned; classes from `len(names)` on become `NO_NAME`."""
    weights, proposer, by_clip = weighed
    masks, count = encoded.encoded.masks, len(names)
    if rule == 'demo':
      masks = (masks > self.config.region.threshold).astype(jnp.float32)
    labels, scores = _paint(encoded, masks, weights, count)
    named = (labels != NO_NAME) & (scores >= threshold)
    best = np.asarray(jnp.argmax(weights, axis=1))
    painted = (best < count) & np.asarray(jnp.max(weights, axis=1) > 0)
    table = ProposalTable(
      boxes=_original_boxes(encoded),
      labels=np.where(painted, best, NO_NAME).astype(np.int32),
      proposer=np.asarray(proposer)[:, :count],
      clip=np.asarray(by_clip)[:, :count],
    )
    return Segmentation(
      labels=np.where(named, labels, NO_NAME),
      names=names,
      scores=np.where(named, scores, np.float32(0)),
      proposals=_rows(table, np.asarray(encoded.encoded.valid)),
    )

  def _method(
    self, classifier: str | None, weight: float | None, rule: str
  ) -> tuple[str, float]:
    """Fills in the settings, after a check of what was asked."""
    lookup({name: name for name in RULES}, rule, 'rule')
    if rule == 'demo' and (classifier not in (None, 'clip') or weight is not None):
      raise ValueError(
        "the rule 'demo' takes CLIP's probabilities alone; leave classifier and weight "
        "out, or take rule='pixels'"
      )
    classifier = self.settings.classifier if classifier is None else classifier
    weight = self.settings.weight if weight is None else weight
    _check_method(classifier, weight)
    return classifier, weight


def _paint(
  encoded: EncodedImage,
  masks: Float[Array, 'q h w'],
  weights: Float[Array, 'q k'],
  count: int,
) -> tuple[Int[np.ndarray, 'H W'], Float[np.ndarray, 'H W']]:
  """Labels and scores of all pixels; labels from `count` on become `NO_NAME`."""
  if not bool(encoded.encoded.valid.any()):
    return np.full(encoded.size, NO_NAME, np.int32), np.zeros(encoded.size, np.float32)
  row = encoded.size[1] * (weights.shape[1] + 2 * masks.shape[0])
  block = min(max(_BLOCK_FLOATS // row, 1), 128)
  labels, scores = label_map(weights, masks, encoded.size, block=block)
  # Padded classes have weight 0, and so never beat a score above 0.
  named = (labels < count) & (scores > 0)
  return np.where(named, labels, NO_NAME), np.where(named, scores, np.float32(0))


_encode = functools.partial(jax.jit, static_argnums=0)(ovseg.encode_image)


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


def _check_threshold(threshold: float) -> None:
  if not (math.isfinite(threshold) and threshold >= 0):
    raise ValueError(
      f'the threshold must be a score of at least 0, got {threshold}; 0 keeps all '
      'pixels'
    )
