"""An OVSeg as an evaluation asks it: many settings and oracles of one encoded image."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.files import Path
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.mask_set import MaskSet, mask_set
from ovs_jax.core.types import NO_LABEL, Array, Bool, Float, Int, Params, UInt8
from ovs_jax.core.workers import Workers
from ovs_jax.evaluate.asked import BY_CLIP, NO_CHANGES, Changes, Setting
from ovs_jax.evaluate.painting import claims, confidence, paint
from ovs_jax.inference.given_masks import as_proposals
from ovs_jax.inference.grid import grid_masks
from ovs_jax.inference.names import SeveralEmbedders
from ovs_jax.inference.parts import add_clips
from ovs_jax.models import ovseg
from ovs_jax.models.clip_mix import mix_of
from ovs_jax.models.mask_prompts import add_to_ovseg
from ovs_jax.models.reduced import WEIGHTS, rounded
from ovs_jax.models.stored import load
from ovs_jax.ops.ensemble import average, combine
from ovs_jax.ops.guided import refine

OTHERS = 'others'  # what a single name competes with

# Those of the proposer, "no object" last, and those of each CLIP.
Logits = tuple[Float[Array, 'q k1'], Float[Array, 'm q k']]


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image that the networks have seen, and its logits for the classes.

  Attributes:
    size: height and width of the image, and so of its label maps.
    content: the same as the networks saw it.
    padded: what they saw, in a bucket.
    encoded: proposals, in the same bucket.
    place: of the device where they are, among those of the host.
    first: whether pixels without any score get the first class.
    photo: the image itself, if label maps follow its borders.
    refine: within how many pixels they do.
  """

  size: tuple[int, int]
  content: tuple[int, int]
  padded: Float[np.ndarray, 'h w 3']
  encoded: ovseg.Encoded
  place: int = 0
  first: bool = False
  photo: UInt8[np.ndarray, 'H W 3'] | None = None
  refine: int = 0

  def paint(self, weights: Float[np.ndarray, 'q k']) -> Int[np.ndarray, 'h w']:
    """Returns the best class of every pixel, `NO_LABEL` where nothing is said.

    Args:
      weights: of the classes for each proposal, at least 0.
    """
    if not bool(self.encoded.valid.any()):
      return np.full(self.size, NO_LABEL, np.int32)
    content, size, first = self.content, self.size, self.first
    labels = paint(weights, self.encoded.masks, content, size, first=first)
    if self.photo is None:
      return labels
    return refine(labels, self.photo, radius=self.refine)[0]

  def confidence(self, weights: Float[np.ndarray, 'q k']) -> Float[np.ndarray, 'h w']:
    """Returns how sure the label of every pixel is that `paint` gives, 0..1."""
    if not bool(self.encoded.valid.any()):
      return np.zeros(self.size, np.float32)
    return confidence(weights, self.encoded.masks, self.content, self.size)


class Network:
  """A checkpoint and its own settings, the same for all data sets."""

  def __init__(
    self,
    directory: Path,
    *,
    changes: Changes = NO_CHANGES,
    workers: Workers | None = None,
  ) -> None:
    """Loads a checkpoint.

    Args:
      directory: of the checkpoint.
      changes: of its settings.
      workers: on whose devices it will be asked; None: on this host's.

    Raises:
      FileNotFoundError, ValueError: there is none, or it holds another model, or the
        mask prompts do not fit it.
    """
    found = load(directory, kinds=('ovseg',))
    stored = found.stored
    model, params = add_to_ovseg(found.config, found.params, changes.prompts)
    model, params = add_clips(model, params, changes.clips, changes.clip_weights)
    params = rounded(params, changes.weights)
    self._embedder = SeveralEmbedders.of(model, params)
    self.setting = Setting(stored['classifier'], float(stored['weight']))
    own = {'templates': stored['templates'], 'threshold': model.region.threshold}
    own |= {name: stored['test'][name] for name in ('shortest', 'longest')}
    own['dtype'] = model.clip.dtype
    self.changed = {
      name: value
      for name, value in own.items()
      if getattr(changes, name) not in (value, type(value)())
    }
    asked = {name: getattr(changes, name) or value for name, value in own.items()}
    self.templates: str = asked['templates']
    self.shortest, self.longest = asked['shortest'], asked['longest']
    self.grid = changes.propose == 'grid'
    if self.grid:
      self.setting = BY_CLIP
    region = dataclasses.replace(model.region, threshold=asked['threshold'])
    self.model = dataclasses.replace(model, region=region)
    if changes.dtype:  # of what sees pictures; names are embedded in the checkpoint's
      self.model = self.model.computing_in(changes.dtype)
    self.changes = changes
    self.params = params
    self.mix = mix_of(model, params)
    # Name and sha256 of the class list; None where the checkpoint does not say.
    self.training_names: dict[str, str] | None = stored.get('training_names')
    self.copies = (workers or Workers()).copies(params)

  def describe(self) -> dict[str, Any]:
    """Returns the settings that a report states, and what is not the checkpoint's."""
    settings = {
      'dtype': self.model.clip.dtype,
      'classifier': self.setting.classifier,
      'lambda': self.setting.weight,
      'mask_threshold': self.model.region.threshold,
      'templates': self.templates,
      'shortest_side': self.shortest,
      'longest_side': self.longest,
      'mask_prompt_depth': self.model.clip.prompt_depth,
    }
    if self.changes.prompts:
      settings['mask_prompts'] = self.changes.prompts
    if self.model.others:
      settings['clip_weights'] = ', '.join(f'{x:.3f}' for x in self.mix.weights)
    if self.changes.clips:
      settings['further_clips'] = ', '.join(self.changes.clips)
    if self.grid:
      settings |= {'masks': 'a grid, without the proposer'}
      del settings['lambda']
    if self.changes.proposer_side:
      settings['proposer_side'] = self.changes.proposer_side
    if self.changes.refine:
      settings['refined within pixels'] = self.changes.refine
    if self.changes.weights != WEIGHTS[0]:
      settings['weights'] = f'rounded to {self.changes.weights}'
    if self.changes.no_score == 'first':
      settings['pixels without a score'] = 'the first class'
    changed = [f'{k} (its own: {v})' for k, v in self.changed.items()]
    if changed:
      settings["not the checkpoint's"] = ', '.join(changed)
    return settings

  def embed(self, names: tuple[str, ...]) -> Float[np.ndarray, 'k d']:
    """Returns the L2-normalised embeddings of names."""
    return self._embedder.names(names, self.templates)

  def encode(
    self,
    image: UInt8[np.ndarray, 'h w 3'],
    *,
    place: int = 0,
    masks: MaskSet | None = None,
  ) -> Picture:
    """Runs everything that does not depend on names.

    Args:
      image: RGB, 0..255.
      place: of the device to run on, among those of the host.
      masks: in place of proposals, which only the classifier 'clip' can name.
    """
    small = resize_shortest(image, shortest=self.shortest, longest=self.longest)
    content, side = small.shape[:2], self.changes.proposer_side
    if self.grid and masks is None:
      masks = mask_set(grid_masks(self.model, self.copies[place], small), content)
    if masks is not None:
      padded = ovseg.pad_to_bucket(small)
      params = self.copies[place]
      encoded = as_proposals(self.model, params, padded, content, masks)
    elif side:
      padded = np.asarray(small, np.float32)
      encoded = _encode(self.model, self.copies[place], padded, None, side)
    else:
      padded = ovseg.pad_to_bucket(small)
      seen = np.array(content)
      encoded = _encode(self.model, self.copies[place], padded, seen, 0)
    first = self.changes.no_score == 'first'
    within = self.changes.refine
    photo = image if within else None
    return Picture(
      image.shape[:2], content, padded, encoded, place, first, photo, within
    )

  def logits(self, picture: Picture, text: Float[np.ndarray, 'k d']) -> Logits:
    """Returns those of the proposer, "no object" last, and those of each CLIP."""
    # The masks play no part here, and without them their size needs no compilation.
    masks = picture.encoded.masks[:, :1, :1]
    encoded = dataclasses.replace(picture.encoded, masks=masks)
    return _classify(encoded, jnp.asarray(text), self.mix)

  def labels(
    self,
    picture: Picture,
    logits: Logits,
    setting: Setting,
    *,
    among: Bool[np.ndarray, 'k'] | None = None,
  ) -> Int[np.ndarray, 'h w']:
    """Returns the label map of the image's size, `NO_LABEL` where nothing is said.

    Args:
      picture: from `encode`.
      logits: from `logits`.
      setting: of the ensemble.
      among: the classes that the model may choose from; None means all.
    """
    weights = self.weights(picture, logits, setting, among=among)
    if among is None:
      return picture.paint(weights)
    return renamed(picture.paint(weights[:, among]), np.flatnonzero(among))

  def weights(
    self,
    picture: Picture,
    logits: Logits,
    setting: Setting,
    *,
    among: Bool[np.ndarray, 'k'] | None = None,
  ) -> Float[np.ndarray, 'q k']:
    """Returns what each proposal says for each class; see `labels`."""
    chosen = None if among is None else jnp.asarray(among)
    valid = picture.encoded.valid
    return np.asarray(_combine(*logits, valid, chosen, self._whole(setting)))

  def _whole(self, setting: Setting) -> Setting:
    """Returns a setting that says how the CLIPs are weighed."""
    mix = self.mix.weighed(setting.clips) if setting.clips else self.mix
    return dataclasses.replace(setting, clips=mix.weights)

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
    proposer, clips = self.logits(picture, text)
    count = -(-len(classes) // 8) * 8
    asked = np.pad(classes, (0, count - len(classes)), mode='edge')
    difference = _single(
      proposer,
      clips,
      picture.encoded.valid,
      jnp.asarray(asked),
      self._whole(setting),
    )
    return claims(
      np.asarray(difference)[:, : len(classes)],
      picture.encoded.masks,
      picture.content,
      picture.size,
    )


@functools.partial(jax.jit, static_argnums=(0, 4))
def _encode(
  model: ovseg.OvSegConfig,
  params: Params,
  image: Float[Array, 'h w 3'],
  size: Int[Array, '2'] | None,
  side: int,
) -> ovseg.Encoded:
  return ovseg.encode_image(model, params, image, size, side=side)


_classify = jax.jit(ovseg.classify_each, static_argnums=2)


@functools.partial(jax.jit, static_argnums=4)
def _combine(
  proposer: Float[Array, 'q k1'],
  clips: Float[Array, 'm q k'],
  valid: Bool[Array, 'q'],
  among: Bool[Array, 'k'] | None,
  setting: Setting,
) -> Float[Array, 'q k']:
  if among is None:
    return _weigh(proposer, clips, valid, setting)
  keep = jnp.append(among, True)
  proposer = jnp.where(keep[None], proposer, -jnp.inf)
  clips = jnp.where(among[None, None], clips, -jnp.inf)
  weights = _weigh(proposer, clips, valid, setting)
  return jnp.where(among[None], weights, 0.0)  # 0 ** 0 is 1


def _weigh(
  proposer: Float[Array, 'q k1'],
  clips: Float[Array, 'm q k'],
  valid: Bool[Array, 'q'],
  setting: Setting,
) -> Float[Array, 'q k']:
  clip = average(clips, setting.clips)
  how = {'classifier': setting.classifier, 'weight': setting.weight}
  return combine(proposer, clip, valid, **how)


@functools.partial(jax.jit, static_argnums=4)
def _single(
  proposer: Float[Array, 'q k2'],
  clips: Float[Array, 'm q k1'],
  valid: Bool[Array, 'q'],
  classes: Int[Array, 't'],
  setting: Setting,
) -> Float[Array, 'q t']:
  """Weights of each name less those of `OTHERS`, both asked for on their own."""

  def one(k: Array) -> Array:
    pair = jnp.stack([k, clips.shape[2] - 1])
    logits = proposer[:, jnp.append(pair, clips.shape[2])]
    weights = _weigh(logits, clips[:, :, pair], valid, setting)
    return weights[:, 0] - weights[:, 1]

  return jax.lax.map(one, classes).T


def renamed(
  labels: Int[np.ndarray, 'h w'], classes: Int[np.ndarray, 't']
) -> Int[np.ndarray, 'h w']:
  """Puts `classes[i]` in place of i; `NO_LABEL` stays."""
  # Index -1 takes the last entry.
  return np.append(classes, NO_LABEL).astype(np.int32)[labels]
