"""OVSeg as a system: proposals that two classifiers name, painted over each other."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path
from ovs_jax.core.lookup import lookup
from ovs_jax.core.mask_set import MaskSet
from ovs_jax.core.types import Params, UInt8
from ovs_jax.inference.encode import (
  MODES,
  EncodedImage,
  EncodedWindows,
  Picture,
  Propose,
  encode_pictures,
  encode_windows,
  modes_of,
)
from ovs_jax.inference.evidence import check_threshold
from ovs_jax.inference.given_label import label_masks
from ovs_jax.inference.given_masks import (
  EncodedMasks,
  clip_alone,
  encode_masks,
  weigh_masks,
)
from ovs_jax.inference.label import result
from ovs_jax.inference.mask_names import NamedMasks, name_masks
from ovs_jax.inference.modes import filtered
from ovs_jax.inference.names import SeveralEmbedders
from ovs_jax.inference.panoptic import divide
from ovs_jax.inference.result import Segmentation
from ovs_jax.inference.settings import (
  Settings,
  check_asked,
  check_method,
  check_window,
)
from ovs_jax.inference.system import Texts
from ovs_jax.inference.weigh import EACH, RULES, Weights, weigh
from ovs_jax.models import ovseg
from ovs_jax.models.clip_mix import mix_of
from ovs_jax.text.classes import NOTHING, Classes, parse_classes

OTHERS = 'others'  # joins a single name: a softmax over one class is always 1


class OvSegSystem:
  """An OVSeg. It keeps the embeddings of all names it was asked.

  Attributes:
    config: of the model, computing in the dtype that was asked for.
    params: with the subtrees `proposer` and `clip`, and those of further CLIPs, on the
      default device.
    settings: how pictures are segmented unless a call says otherwise.
    embedder: the text towers, and the rows of all names so far.
    mix: how the scores of its CLIPs become one.
    propose: makes the masks.
  """

  kind = 'ovseg'
  rules = (*RULES, EACH)
  abilities = ('window', 'overlap', 'agreement', 'masks')

  def __init__(
    self,
    config: ovseg.OvSegConfig,
    params: Params,
    *,
    settings: Settings,
    text_cache: Path | None = None,
    dtype: str | None = None,
    panoptic: bool = False,
    propose: Propose = ovseg.propose,
  ) -> None:
    """Puts parameters on the default device; those that are on some stay there.

    Args:
      config: of the model whose `params` are given.
      params: with the subtrees `proposer` and `clip`, and those of further CLIPs.
      settings: the defaults of `segment`.
      text_cache: where embeddings of names are kept on disk: a directory, 'off', or
        None for $OVS_JAX_TEXT_CACHE, and without that ~/.cache/ovs_jax/text.
      dtype: what the networks compute pictures in, such as 'bfloat16'; None: the
        configuration's.
      panoptic: whether the proposer has learnt to tell things of one name apart.
      propose: makes the masks in the proposer's place.

    Raises:
      ValueError: a CLIP cannot be asked in the mode of `settings`.
    """
    modes = [settings.mode in modes_of(clip) for clip in config.clips]
    if not all(modes):
      which = f' (number {modes.index(False) + 1} of {len(modes)})' * (len(modes) > 1)
      raise UserError(
        f'the mode {settings.mode!r} pools features of a picture; the class token of '
        f"this CLIP{which} is its embedding: take mode='one_pass'"
      )
    self.config = config if dtype is None else config.computing_in(dtype)
    self.params = jax.tree.map(jnp.asarray, dict(params))
    self.settings = settings
    self.embedder = SeveralEmbedders.of(config, self.params, cache=text_cache)
    self.mix = mix_of(config, self.params)
    self.propose = propose
    self._panoptic = panoptic
    self._stored = config

  def exact(self) -> 'OvSegSystem':
    """Returns the same in the mode 'exact' and the checkpoint's own dtype."""
    same = OvSegSystem(
      self._stored,
      self.params,
      settings=dataclasses.replace(self.settings, mode=MODES[0]),
      propose=self.propose,
    )
    same.embedder = self.embedder
    return same

  def embed(
    self, classes: Classes, *, templates: Any = None, synonyms: str = 'mean'
  ) -> Texts:
    """Embeds names, from memory or disk where they were asked before.

    Args:
      classes: names and words.
      templates: name of a set, or sentences with a '{}'; None takes the settings'.
      synonyms: 'mean' of a name's words; 'max', a row per word, of which the best
        counts; or 'paper', one string with commas.

    Raises:
      ValueError: a name is too long for CLIP, or the templates are unknown.
    """
    templates = self.settings.templates if templates is None else templates
    rows, owner = self.embedder.classes(classes, templates, synonyms)
    return Texts(len(classes), owner, None, rows)

  def encode(self, image: UInt8[np.ndarray, 'h w 3']) -> Picture:
    """Runs all of the networks that do not depend on names."""
    return self.encode_all([image])[0]

  def encode_all(
    self,
    images: Sequence[UInt8[np.ndarray, '_ _ 3']],
    *,
    window: int | None = None,
    overlap: float = 0.25,
  ) -> list[Picture]:
    """Encodes pictures, whose crops go through CLIP together.

    Compiles for each new size; sizes are rounded up to few (`models.ovseg`).

    Args:
      images: RGB, 0..255.
      window: side in pixels of the windows that a larger picture is cut into, each of
        which is resized as a picture is; None never cuts.
      overlap: share of a window that the next one repeats, 0..0.5.
    """
    check_window(window, overlap)
    options = {
      key: getattr(self.settings, key) for key in ('shortest', 'longest', 'mode')
    }
    options['propose'] = self.propose
    if window is None or all(max(image.shape[:2]) <= window for image in images):
      return encode_pictures(self.config, self.params, images, **options)
    cut = {'window': window, 'overlap': overlap, **options}
    return [
      encode_windows(self.config, self.params, image, **cut)
      if max(image.shape[:2]) > window
      else encode_pictures(self.config, self.params, [image], **options)[0]
      for image in images
    ]

  def encode_masks(
    self, image: UInt8[np.ndarray, 'h w 3'], masks: MaskSet
  ) -> EncodedMasks:
    """Shows masks to CLIP that were given in place of proposals.

    Args:
      image: RGB, 0..255.
      masks: of its size.

    Raises:
      ValueError: the model's mode or classifier needs proposals.
    """
    settings = self.settings
    asked = settings.classifier if settings.classifier_asked else None
    clip_alone(asked, None, panoptic=False, mode=settings.mode)
    sides = {'shortest': settings.shortest, 'longest': settings.longest}
    return encode_masks(self.config, self.params, image, masks, **sides)

  def segment(
    self,
    encoded: Picture | EncodedMasks,
    classes: Classes,
    background: Classes = NOTHING,
    *,
    templates: str | Sequence[str] | None = None,
    synonyms: str = 'mean',
    threshold: float = 0.0,
    rule: str = 'pixels',
    classifier: str | None = None,
    weight: float | None = None,
    panoptic: bool = False,
    maps: bool = False,
  ) -> Segmentation | NamedMasks:
    """Gives every pixel the best of the names.

    A single name without background competes with 'others', and pixels that the latter
    wins get no name. So do all pixels if no proposal shows anything.

    Args:
      encoded: what `encode` or `encode_masks` returned.
      classes: the names.
      background: names that compete too; pixels that they win get no name.
      templates: name of a set, or sentences with a '{}'; None takes the settings'.
      synonyms: as in `embed`.
      threshold: pixels of less confidence get no name, segments no id, 0..1.
      rule: 'pixels', all proposals add up; or 'demo', only the best one of each name is
        painted; or 'each', which names masks that were given, and paints nothing.
      classifier: 'ensemble', 'clip' or 'proposer'; None takes the settings'.
      weight: of CLIP in the ensemble, 0..1; None takes the settings'.
      panoptic: whether to make segments with ids, too.
      maps: whether the confidence of every name is kept, and with it all masks.

    Raises:
      ValueError: an option is wrong, or does not go with the mode or the rule.
    """
    if self.by_clip_alone(encoded):
      classifier = clip_alone(classifier, weight, panoptic, self.settings.mode)
    classifier, weight = self.method(classifier, weight, rule)
    check_threshold(threshold)
    choosing = classes + background
    texts = self.embed(with_others(choosing), templates=templates, synonyms=synonyms)
    method = {'classifier': classifier, 'weight': weight}
    asked = {'rows': texts.rows, 'owner': texts.owner, 'choosing': len(choosing)}
    asked['mix'] = self.mix
    run = functools.partial(weigh, rule=rule, **asked, **method)
    how = {'threshold': threshold, 'maps': maps}
    if rule in ('demo', EACH):
      how['binary'] = self.config.region.threshold
    if isinstance(encoded, EncodedMasks):
      weighed = weigh_masks(encoded, run, texts.count, rule, self.mix.widths[0])
      label = name_masks if rule == EACH else label_masks
      return label(encoded, classes.names, *weighed, **how)
    windows = isinstance(encoded, EncodedWindows)
    parts = encoded.windows if windows else (encoded,)
    check_asked(windows, self.settings.mode, rule, panoptic)
    weighed = [self._weigh(part, run) for part in parts]
    found = result(encoded, classes.names, weighed, **how)
    return self._divide(found, encoded, weighed, threshold) if panoptic else found

  def by_clip_alone(self, encoded: Picture | EncodedMasks) -> bool:
    """Whether no proposer made the masks, so that only CLIP can name them."""
    return isinstance(encoded, EncodedMasks)

  def _divide(
    self,
    found: Segmentation,
    encoded: EncodedImage,
    weighed: Sequence[Weights],
    threshold: float,
  ) -> Segmentation:
    """Adds segments with ids to the result for a whole picture."""
    asked = {'trained': self._panoptic, 'threshold': threshold}
    ids = divide(encoded, weighed[0][0], found.names, **asked)
    return dataclasses.replace(found, panoptic=ids)

  def _weigh(
    self, part: EncodedImage, run: Callable[[ovseg.Encoded], Weights]
  ) -> Weights:
    """Weighs the proposals; in the mode that chooses crops, CLIP sees these first."""
    return run(part.encoded) if part.crops is None else filtered(part, run)

  def method(
    self, classifier: str | None, weight: float | None, rule: str
  ) -> tuple[str, float]:
    """Fills in the settings, after a check of what was asked."""
    lookup(dict.fromkeys(self.rules), rule, 'rule')
    if rule == 'demo' and (classifier not in (None, 'clip') or weight is not None):
      raise UserError(
        "the rule 'demo' takes CLIP's probabilities alone; leave classifier and weight "
        "out, or take rule='pixels'"
      )
    classifier = self.settings.classifier if classifier is None else classifier
    weight = self.settings.weight if weight is None else weight
    check_method(classifier, weight)
    return classifier, weight


def with_others(classes: Classes) -> Classes:
  """Gives a single name something to compete with."""
  if len(classes) > 1 or classes.names[0].lower() == OTHERS:
    return classes
  return classes + parse_classes(OTHERS)
