"""OVSeg as a Python object: encode a picture once, ask for names many times.

segmenter = Segmenter.load('checkpoints/ovseg')
picture = segmenter.encode('photo.jpg')
result = segmenter.segment(picture, 'red ball, grass')
result.overlay('photo.jpg').save('overlay.png')
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.checkpoint import load_config
from ovs_jax.core.files import Path
from ovs_jax.core.images import ImageLike, as_rgb
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Float, Params
from ovs_jax.inference import prompted
from ovs_jax.inference.encode import (
  MODES,
  EncodedImage,
  EncodedWindows,
  Picture,
  Propose,
  encode_pictures,
  encode_windows,
)
from ovs_jax.inference.label import result
from ovs_jax.inference.load import describes, load
from ovs_jax.inference.modes import certified, filtered
from ovs_jax.inference.names import NameEmbedder
from ovs_jax.inference.panoptic import divide
from ovs_jax.inference.result import Segmentation
from ovs_jax.inference.settings import (
  Settings,
  check_asked,
  check_method,
  check_threshold,
  check_window,
)
from ovs_jax.inference.weigh import RULES, Weights, weigh
from ovs_jax.models import ovseg
from ovs_jax.models.mask_prompts import add_to_ovseg
from ovs_jax.text.classes import Classes, Names, parse_background, parse_classes

OTHERS = 'others'  # joins a single name: a softmax over one class is always 1


class Segmenter:
  """A model, ready to segment. It keeps the embeddings of all names it was asked."""

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
      params: with the subtrees `proposer` and `clip`.
      settings: the defaults of `segment`.
      text_cache: where embeddings of names are kept on disk: a directory, 'off', or
        None for the default; see `text.cache.cache_root`.
      dtype: what the networks compute pictures in, such as 'bfloat16'; None: the
        configuration's.
      panoptic: whether the proposer has learnt to tell things of one name apart.
      propose: makes the masks in the proposer's place.
    """
    self.propose = propose
    self.config = config if dtype is None else config.computing_in(dtype)
    self.settings = settings
    self.panoptic = panoptic
    self._stored = config
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
    mode: str | None = None,
    text_cache: Path | None = None,
    dtype: str | None = None,
    prompts: Path | None = None,
  ) -> Any:
    """Reads an OVSeg checkpoint; of a CLIPSeg or CoSeg, see `inference.prompted`.

    Args:
      directory: see `core.checkpoint.load_model`.
      classifier: this and the others replace the checkpoint's; see `Settings`.
      weight: see `Settings`.
      templates: see `Settings`.
      shortest: see `Settings`.
      longest: see `Settings`.
      mode: see `Settings`.
      text_cache: see `__init__`.
      dtype: see `__init__`.
      prompts: directory of mask prompts for its CLIP; see `models.mask_prompts`.

    Raises:
      FileNotFoundError: there is no such directory.
      ValueError: it is not a whole OVSeg checkpoint, or a setting is unknown.
    """
    if load_config(directory).get('model') in prompted.KINDS:
      own = {'classifier': classifier, 'weight': weight, 'prompts': prompts}
      own |= {'shortest': shortest, 'longest': longest}
      return prompted.load(directory, own, templates=templates, text_cache=text_cache)
    found = load(directory, kinds=('ovseg',))
    given = {
      'classifier': classifier,
      'weight': weight,
      'templates': templates,
      'shortest': shortest,
      'longest': longest,
    }
    with describes(directory, 'ovseg'):
      own = {**found.stored['test'], **found.stored}
      settings = {k: own[k] if v is None else v for k, v in given.items()}
    config, params = add_to_ovseg(found.config, found.params, prompts)
    return cls(
      config,
      params,
      settings=Settings(**settings, mode=mode or MODES[0]),
      text_cache=text_cache,
      dtype=dtype,
      panoptic=bool(found.stored.get('panoptic')),  # our recipes never write it
    )

  def encode(
    self,
    image: ImageLike | Sequence[ImageLike],
    *,
    window: int | None = None,
    overlap: float = 0.25,
  ) -> Picture | list[Picture]:
    """Runs all of the networks that do not depend on names.

    Compiles for each new size; sizes are rounded up to few (`models.content.SIDES`).

    Args:
      image: a path, a Pillow image or an array (see `core.images.as_rgb`); or a list
        of them, of any sizes, whose crops go through CLIP together.
      window: side in pixels of the windows that a larger picture is cut into, each of
        which is resized as a picture is; None never cuts.
      overlap: share of a window that the next one repeats, 0..0.5.

    Returns:
      What `segment` takes; for a list, a list.
    """
    several = isinstance(image, Sequence) and not isinstance(image, str)
    pictures = [as_rgb(one) for one in (image if several else [image])]
    check_window(window, overlap, self.settings.mode)
    options = {
      key: getattr(self.settings, key) for key in ('shortest', 'longest', 'mode')
    }
    options['propose'] = self.propose
    if window is None or all(max(p.shape[:2]) <= window for p in pictures):
      found = _encode(self.config, self._params, pictures, **options)
    else:
      cut = {'window': window, 'overlap': overlap, **options}
      found = [
        encode_windows(self.config, self._params, picture, **cut)
        if max(picture.shape[:2]) > window
        else _encode(self.config, self._params, [picture], **options)[0]
        for picture in pictures
      ]
    return found if several else found[0]

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
    encoded: Picture,
    names: Names,
    *,
    classifier: str | None = None,
    weight: float | None = None,
    templates: str | Sequence[str] | None = None,
    synonyms: str = 'mean',
    background: Names | None = None,
    threshold: float = 0.0,
    rule: str = 'pixels',
    panoptic: bool = False,
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
      rule: how proposals become labels; see `weigh.RULES`.
      panoptic: whether to make segments with ids, too; see `panoptic.divide`.

    Raises:
      ValueError: names are none, blank, repeated, or too long for CLIP; or an option
        is unknown, out of range, or does not go with the rule.
    """
    classes = parse_classes(names)
    behind = parse_background(background, classes)
    classifier, weight = self._method(classifier, weight, rule)
    check_threshold(threshold)
    choosing = classes + behind
    asked = _with_others(choosing)
    templates = self.settings.templates if templates is None else templates
    rows, owner = self._embedder.classes(asked, templates, synonyms)
    method = {'classifier': classifier, 'weight': weight}
    run = functools.partial(
      weigh, rows=rows, owner=owner, choosing=len(choosing), rule=rule, **method
    )
    windows = isinstance(encoded, EncodedWindows)
    parts = encoded.windows if windows else (encoded,)
    check_asked(windows, self.settings.mode, rule, threshold, panoptic)
    weighed = [self._weigh(part, run, len(asked), method) for part in parts]
    binary = self.config.region.threshold if rule == 'demo' else None
    segmentation = result(encoded, classes.names, weighed, threshold, binary)
    if not panoptic:
      return segmentation
    found = divide(encoded, weighed[0][0], classes.names, trained=self.panoptic)
    return dataclasses.replace(segmentation, panoptic=found)

  def agreement(self, image: ImageLike, names: Names, **options: Any) -> float:
    """Returns the share of pixels that the exact mode and dtype label the same, 0..1.

    Args:
      image: see `encode`; without windows.
      names: see `segment`.
      options: of `segment`.
    """
    exact = Segmenter(
      self._stored,
      self._params,
      settings=dataclasses.replace(self.settings, mode=MODES[0]),
      propose=self.propose,
    )
    exact._embedder = self._embedder
    first, second = (
      one.segment(one.encode(image), names, **options) for one in (self, exact)
    )
    return first.agreement(second)

  def _weigh(
    self,
    part: EncodedImage,
    run: Callable[[ovseg.Encoded], Weights],
    count: int,
    method: Mapping[str, Any],
  ) -> Weights:
    """Weighs the proposals, after those crops went through CLIP that have to."""
    if part.crops is None:
      return run(part.encoded)
    if self.settings.mode == 'filtered':
      return filtered(part, run)
    return certified(part, run, count, **method)

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
    check_method(classifier, weight)
    return classifier, weight


def _with_others(classes: Classes) -> Classes:
  """Gives a single name something to compete with."""
  if len(classes) > 1 or classes.names[0].lower() == OTHERS:
    return classes
  return classes + parse_classes(OTHERS)


# Named here so that it can be replaced.
_encode = encode_pictures
