"""An OVSeg as an evaluation asks it: many settings and oracles of one encoded image."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.files import Path
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.types import Array, Bool, Float, Int, Num, Params, UInt8
from ovs_jax.core.workers import Workers
from ovs_jax.evaluate.painting import UNASSIGNED, claims, paint
from ovs_jax.models import ovseg
from ovs_jax.models.class_text import NameEmbedder
from ovs_jax.ops.ensemble import class_logits, combine
from ovs_jax.ops.regions import crop_regions

OTHERS = 'others'  # what a single name competes with


@dataclasses.dataclass(frozen=True)
class Setting:
  """How two classifiers become one; see `ops.ensemble.combine`."""

  classifier: str
  weight: float

  @property
  def name(self) -> str:
    """Such as `ensemble_0.70`."""
    if self.classifier == 'ensemble':
      return f'ensemble_{self.weight:.2f}'
    return self.classifier


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image that the networks have seen, and its logits for the classes.

  Attributes:
    size: height and width of the image, and so of its label maps.
    content: the same as the networks saw it.
    padded: what they saw, in a bucket.
    encoded: proposals, in the same bucket.
    place: of the device where they are, among those of the host.
  """

  size: tuple[int, int]
  content: tuple[int, int]
  padded: Float[np.ndarray, 'h w 3']
  encoded: ovseg.Encoded
  place: int = 0


class Network:
  """A checkpoint and its own settings, the same for all data sets."""

  def __init__(
    self, directory: Path, *, dtype: str = '', workers: Workers | None = None
  ) -> None:
    """Loads a checkpoint.

    Args:
      directory: of the checkpoint.
      dtype: that the networks see pictures in, of `models.ovseg.DTYPES`; '': its own.
      workers: on whose devices it will be asked; None: on this host's.

    Raises:
      FileNotFoundError, ValueError: there is none, or it holds another model.
    """
    params, stored = load_model(directory, kind='ovseg')
    stored_model = ovseg.OvSegConfig.from_dict(stored)
    self.model = stored_model.computing_in(dtype) if dtype else stored_model
    self.templates: str = stored['templates']
    self.setting = Setting(stored['classifier'], float(stored['weight']))
    self.shortest, self.longest = (stored['test'][k] for k in ('shortest', 'longest'))
    # Name and sha256 of the class list; None where the checkpoint does not say.
    self.training_names: dict[str, str] | None = stored.get('training_names')
    self._copies = (workers or Workers()).copies(params)
    self._embedder = NameEmbedder(stored_model.clip, params['clip'])

  def describe(self) -> dict[str, str | float]:
    """Returns the settings that a report states."""
    return {
      'dtype': self.model.clip.dtype,
      'classifier': self.setting.classifier,
      'lambda': self.setting.weight,
      'mask_threshold': self.model.region.threshold,
      'templates': self.templates,
      'shortest_side': self.shortest,
      'longest_side': self.longest,
      'mask_prompt_depth': self.model.clip.prompt_depth,
    }

  def embed(self, names: tuple[str, ...]) -> Float[np.ndarray, 'k d']:
    """Returns the L2-normalised embeddings of names."""
    return self._embedder.names(names, self.templates)

  def encode(self, image: UInt8[np.ndarray, 'h w 3'], *, place: int = 0) -> Picture:
    """Runs everything that does not depend on names, on the device of that place."""
    small = resize_shortest(image, shortest=self.shortest, longest=self.longest)
    content = small.shape[:2]
    padded = ovseg.pad_to_bucket(small)
    encoded = _encode(self.model, self._copies[place], padded, np.array(content))
    return Picture(image.shape[:2], content, padded, encoded, place)

  def logits(
    self, picture: Picture, text: Float[np.ndarray, 'k d']
  ) -> tuple[Float[Array, 'q k1'], Float[Array, 'q k']]:
    """Returns those of the proposer, "no object" last, and those of CLIP."""
    # The masks play no part here, and without them their size needs no compilation.
    masks = picture.encoded.masks[:, :1, :1]
    encoded = dataclasses.replace(picture.encoded, masks=masks)
    return _classify(encoded, jnp.asarray(text))

  def labels(
    self,
    picture: Picture,
    logits: tuple[Float[Array, 'q k1'], Float[Array, 'q k']],
    setting: Setting,
    *,
    among: Bool[np.ndarray, 'k'] | None = None,
  ) -> Int[np.ndarray, 'h w']:
    """Returns the label map of the image's size, `UNASSIGNED` where nothing is said.

    Args:
      picture: from `encode`.
      logits: from `logits`.
      setting: of the ensemble.
      among: the classes that the model may choose from; None means all.
    """
    chosen = None if among is None else jnp.asarray(among)
    valid = picture.encoded.valid
    weights = np.asarray(
      _combine(*logits, valid, chosen, setting.classifier, setting.weight)
    )
    if not bool(valid.any()):
      return np.full(picture.size, UNASSIGNED, np.int32)
    if among is None:
      return self._paint(picture, weights)
    return _renamed(self._paint(picture, weights[:, among]), np.flatnonzero(among))

  def _paint(
    self, picture: Picture, weights: Float[np.ndarray, 'q k']
  ) -> Int[np.ndarray, 'h w']:
    return paint(weights, picture.encoded.masks, picture.content, picture.size)

  def oracle_masks(
    self,
    picture: Picture,
    text: Float[np.ndarray, 'k d'],
    label: Int[np.ndarray, 'h w'],
    classes: Int[np.ndarray, 't'],
  ) -> Int[np.ndarray, 'h w']:
    """Returns the true masks, each with the class that CLIP gives its crop.

    A mask too small to be seen at the networks' resolution stays unassigned.

    Args:
      picture: from `encode`.
      text: embeddings of all classes.
      label: the true label map.
      classes: those that it shows.
    """
    small = _nearest(label, picture.content)
    count = -(-len(classes) // 8) * 8
    masks = np.zeros((count, *picture.padded.shape[:2]), np.float32)
    h, w = picture.content
    masks[: len(classes), :h, :w] = small[None] == classes[:, None, None]
    guess, valid = _classify_masks(
      self.model,
      self._copies[picture.place]['clip'],
      picture.padded,
      jnp.asarray(masks),
      jnp.asarray(text),
    )
    guess = np.where(valid, guess, UNASSIGNED)[: len(classes)]
    result = np.full(label.shape, UNASSIGNED, np.int32)
    place = np.searchsorted(classes, label)
    place = np.minimum(place, len(classes) - 1)
    known = classes[place] == label
    result[known] = guess[place[known]]
    return result

  def oracle_classes(
    self,
    picture: Picture,
    label: Int[np.ndarray, 'h w'],
    classes: Int[np.ndarray, 't'],
  ) -> Int[np.ndarray, 'h w']:
    """Returns the proposals, each with the true class that it covers most.

    As `oracle.true_classes`, at the picture's size and for any number of classes.
    """
    h, w = picture.content
    small = np.searchsorted(classes, _nearest(label, picture.content))
    known = np.isin(_nearest(label, picture.content), classes)
    binary = np.asarray(picture.encoded.masks[:, :h, :w] > 0.5)
    inside = np.stack(
      [np.bincount(small[mask & known], minlength=len(classes)) for mask in binary]
    )
    purity = inside.max(axis=1) / np.maximum(inside.sum(axis=1), 1)
    purity = np.where(np.asarray(picture.encoded.valid), purity, 0.0)
    weights = np.eye(len(classes), dtype=np.float32)[inside.argmax(axis=1)]
    weights *= purity[:, None].astype(np.float32)
    return _renamed(self._paint(picture, weights), classes)

  def single_concepts(
    self,
    picture: Picture,
    text: Float[np.ndarray, 'k1 d'],
    classes: Int[np.ndarray, 't'],
    setting: Setting,
  ) -> Bool[np.ndarray, 't h w']:
    """Returns where each class is, when it is the only one that is asked for.

    Args:
      picture: from `encode`.
      text: embeddings of all classes, and then of `OTHERS`, their only alternative.
      classes: to ask for.
      setting: of the ensemble.
    """
    if not bool(picture.encoded.valid.any()):
      return np.zeros((len(classes), *picture.size), bool)
    proposer, clip = self.logits(picture, text)
    count = -(-len(classes) // 8) * 8
    asked = np.pad(classes, (0, count - len(classes)), mode='edge')
    difference = _single(
      proposer,
      clip,
      picture.encoded.valid,
      jnp.asarray(asked),
      setting.classifier,
      setting.weight,
    )
    return claims(
      np.asarray(difference)[:, : len(classes)],
      picture.encoded.masks,
      picture.content,
      picture.size,
    )


_encode = functools.partial(jax.jit, static_argnums=0)(ovseg.encode_image)
_classify = jax.jit(ovseg.classify)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _combine(
  proposer: Float[Array, 'q k1'],
  clip: Float[Array, 'q k'],
  valid: Bool[Array, 'q'],
  among: Bool[Array, 'k'] | None,
  classifier: str,
  weight: float,
) -> Float[Array, 'q k']:
  if among is None:
    return combine(proposer, clip, valid, classifier=classifier, weight=weight)
  keep = jnp.append(among, True)
  proposer = jnp.where(keep[None], proposer, -jnp.inf)
  clip = jnp.where(among[None], clip, -jnp.inf)
  weights = combine(proposer, clip, valid, classifier=classifier, weight=weight)
  return jnp.where(among[None], weights, 0.0)  # 0 ** 0 is 1


@functools.partial(jax.jit, static_argnums=(4, 5))
def _single(
  proposer: Float[Array, 'q k2'],
  clip: Float[Array, 'q k1'],
  valid: Bool[Array, 'q'],
  classes: Int[Array, 't'],
  classifier: str,
  weight: float,
) -> Float[Array, 'q t']:
  """Weights of each name less those of `OTHERS`, both asked for on their own."""

  def one(k: Array) -> Array:
    pair = jnp.stack([k, clip.shape[1] - 1])
    logits = proposer[:, jnp.append(pair, clip.shape[1])]
    weights = combine(
      logits, clip[:, pair], valid, classifier=classifier, weight=weight
    )
    return weights[:, 0] - weights[:, 1]

  return jax.lax.map(one, classes).T


@functools.partial(jax.jit, static_argnums=0)
def _classify_masks(
  model: ovseg.OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 't h w'],
  text: Float[Array, 'k d'],
) -> tuple[Int[Array, 't'], Bool[Array, 't']]:
  regions = crop_regions(image, masks, model.region)
  embeddings = ovseg.embed_regions(model, params, regions)
  return jnp.argmax(class_logits(embeddings, text), axis=1), regions.valid


def _nearest(
  label: Int[np.ndarray, 'h w'], size: tuple[int, int]
) -> Int[np.ndarray, 'H W']:
  """Nearest neighbours at the centres of pixels."""
  rows, columns = (
    ((np.arange(n) + 0.5) * (m / n)).astype(np.int64)
    for n, m in zip(size, label.shape, strict=True)
  )
  return label[rows[:, None], columns[None]]


def _renamed(
  labels: Int[np.ndarray, 'h w'], classes: Int[np.ndarray, 't']
) -> Int[np.ndarray, 'h w']:
  """Puts `classes[i]` in place of i; `UNASSIGNED` stays."""
  # Index -1 takes the last entry.
  return np.append(classes, UNASSIGNED).astype(np.int32)[labels]
