"""A model as a Python object: encode a picture once, ask for names many times.

segmenter = Segmenter.load('checkpoints/ovseg')  # or of a CLIPSeg or CoSeg
picture = segmenter.encode('photo.jpg')
result = segmenter.segment(picture, 'red ball, grass')  # or of 'photo.jpg' itself
result.overlay('photo.jpg').save('overlay.png')
"""

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.checkpoint import load_config, load_model, save_model
from ovs_jax.core.devices import enough_memory
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path
from ovs_jax.core.images import IMAGE_TYPES, ImageLike, as_rgb
from ovs_jax.core.mask_set import MasksLike, mask_set
from ovs_jax.core.types import Float, UInt8
from ovs_jax.inference import shown
from ovs_jax.inference.explain import Explanation, explain
from ovs_jax.inference.given_masks import EncodedMasks
from ovs_jax.inference.load import load_system
from ovs_jax.inference.mask_names import NamedMasks
from ovs_jax.inference.named import located
from ovs_jax.inference.result import Segmentation
from ovs_jax.inference.system import System, check_options, options_of
from ovs_jax.text.classes import Names, parse_background, parse_classes
from ovs_jax.text.vocabulary import knowledge

_LESS = 'a smaller picture and fewer names take less'
# Pictures of something, and for each which of its pixels (true) are that thing.
Examples = Mapping[str, Sequence[tuple[ImageLike, Any]]]


class Segmenter:
  """A model, ready to segment.

  Attributes:
    system: the model, of whichever kind.
  """

  def __init__(self, system: System, directory: Path | None = None) -> None:
    """Takes what `inference.load.load_system` returns."""
    self.system = system
    self._directory = directory
    # Small photos of what is encoded, by its id, for results that show themselves.
    self._photos: dict[int, np.ndarray] = {}

  @property
  def knows(self) -> str:
    """What the model was trained on, such as 'masks of 171 names (coco_stuff_171)'.

    Empty where its checkpoint does not say.
    """
    if self._directory is None:
      return ''
    told = load_config(self._directory).get('training_names')
    return knowledge(str(told.get('name'))) if isinstance(told, dict) else ''

  @classmethod
  def load(
    cls,
    directory: Path,
    *,
    templates: str | Sequence[str] | None = None,
    text_cache: Path | None = None,
    classifier: str | None = None,
    weight: float | None = None,
    shortest: int | None = None,
    longest: int | None = None,
    mode: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    prompts: Path | None = None,
    clips: Sequence[Path] | None = None,
    clip_weights: Sequence[float] | None = None,
    propose: str | None = None,
    labels: int | None = None,
    label_clip: Path | None = None,
    keep_aspect: bool = False,
    accept_licence: bool = False,
  ) -> 'Segmenter':
    """Reads an OVSeg, CLIPSeg, CoSeg or CLIP; None is as the checkpoint says.

    A CLIP segments by itself: masks are superpixels (`inference.grid`).

    Args:
      directory: a model directory, a run (its newest step), or a name such as
        'clipseg-rd64-refined' or 'hf://ORG/NAME', fetched and converted once.
      templates: name of a set in `text.templates`, or sentences with a '{}'.
      text_cache: folder of embedded names, 'off', or None for the default one.
      classifier: OVSeg: 'ensemble', 'clip' or 'proposer' names the proposals.
      weight: OVSeg: of CLIP in the ensemble, 0..1.
      shortest, longest: OVSeg: the shorter side for the network, the longer's limit.
      mode: OVSeg: which crops CLIP sees: 'exact', all; 'filtered', likely objects;
        'one_pass' and 'pooled', the picture.
      dtype: OVSeg: what the networks compute pictures in, such as 'bfloat16'.
      weights: OVSeg: 'bfloat16' or 'int8' rounds them as `ovs-jax export` does.
      prompts: OVSeg: directory of mask prompts for its CLIP.
      clips: OVSeg: further CLIPs, whose probabilities are averaged with its own.
      clip_weights: OVSeg: of all CLIPs in that, its own first; None: all the same.
      propose: OVSeg: 'grid' has superpixels in place of the proposer's masks.
      labels: CLIPSeg: names that CLIP chooses (the paper: 20); None segments all.
      label_clip: CLIPSeg: checkpoint of the CLIP that chooses; None takes its own.
      keep_aspect: CLIPSeg and CoSeg: whether pictures are not squashed to a square (a
        CoSeg sees them padded to one).
      accept_licence: whether to fetch a model whose licence restricts its use.

    Raises:
      FileNotFoundError: there is no such directory.
      ValueError: it holds no model or a damaged one, or an option of another kind.
    """
    options = _given(templates=templates, text_cache=text_cache, prompts=prompts)
    options |= _given(classifier=classifier, weight=weight, mode=mode, dtype=dtype)
    options |= _given(shortest=shortest, longest=longest, weights=weights)
    options |= _given(clips=clips, clip_weights=clip_weights, labels=labels)
    options |= _given(propose=propose)
    options |= _given(label_clip=label_clip, keep_aspect=keep_aspect)
    directory = located(directory, accept_licence=accept_licence)
    return cls(load_system(directory, **options), directory)

  def save(self, directory: Path) -> None:
    """Writes the checkpoint that was loaded to another directory, atomically.

    Raises:
      UserError: nothing was loaded, or `directory` is not one of ours.
    """
    save_model(directory, *load_model(self._source()))

  def push(
    self, name: str, *, licence: str, private: bool = True, dry_run: Path | None = None
  ) -> Path:
    """Shares the checkpoint that was loaded on the Hugging Face hub.

    Then `Segmenter.load('hf://ORG/NAME')` finds it.

    Args:
      name: ORG/NAME of the repository, which is made if it is not there.
      licence: of the weights, as the hub names it, such as 'apache-2.0'.
      private: whether a new repository is.
      dry_run: a folder to write in place of the repository.

    Returns:
      The folder, or the address of the repository.

    Raises:
      UserError: nothing was loaded, or the hub refuses.
      OSError: it cannot be reached.
    """
    from ovs_jax.convert import hub, share

    address = f'hf://{name}'
    if dry_run is not None:
      return share.write(self._source(), dry_run, address=address, licence=licence)
    return hub.push(self._source(), name, licence=licence, private=private)

  def _source(self) -> Path:
    if self._directory is None:
      raise UserError('this model was not loaded from a checkpoint; load it from one')
    return self._directory

  @enough_memory(_LESS)
  def encode(
    self,
    image: ImageLike | Sequence[ImageLike],
    *,
    window: int | None = None,
    overlap: float = 0.25,
    masks: MasksLike | None = None,
  ) -> Any:
    """Runs all of the networks that do not depend on names.

    Args:
      image: a path, a Pillow image, or an array (h, w, 3) of uint8 or of floats in
        0..1; or a list of them, of any sizes, which OVSeg's CLIP sees together.
      window: OVSeg: side in pixels of the windows that a larger picture is cut into,
        each of which is resized as a picture is; None never cuts.
      overlap: share of a window that the next one repeats, 0..0.5.
      masks: OVSeg: of one image, in place of proposals, which CLIP alone names: an
        array (n, h, w) or a list of arrays (h, w), true or false or soft in 0..1, of
        the image's size; they may overlap.

    Returns:
      What `segment` takes; for a list, a list.

    Raises:
      ValueError: an image cannot be read or is too small, or windows cannot be, or
        masks are none, of another size or out of range.
    """
    several = isinstance(image, Sequence) and not isinstance(image, str)
    if masks is not None:
      return self._encode_masks(image, masks, whole=not several and window is None)
    images = [as_rgb(one) for one in (image if several else [image])]
    found = self.system.encode_all(images, window=window, overlap=overlap)
    for encoded, one in zip(found, images, strict=True):
      self._remember(encoded, one)
    return found if several else found[0]

  def _remember(self, encoded: Any, image: UInt8[np.ndarray, 'h w 3']) -> None:
    """Keeps a small photo as long as what was encoded of it."""
    self._photos[id(encoded)] = shown.small(image)
    weakref.finalize(encoded, self._photos.pop, id(encoded), None)

  def _encode_masks(
    self, image: ImageLike | Sequence[ImageLike], masks: MasksLike, *, whole: bool
  ) -> EncodedMasks:
    check_options(self.system.kind, self.system.abilities, {'masks': masks})
    if not whole:
      raise UserError(
        'masks belong to one whole image; encode images one by one, and leave window '
        'out'
      )
    picture = as_rgb(image)
    found = self.system.encode_masks(picture, mask_set(masks, picture.shape[:2]))
    self._remember(found, picture)
    return found

  def embed_names(
    self,
    names: Names,
    *,
    templates: str | Sequence[str] | None = None,
    synonyms: str = 'mean',
  ) -> Float[np.ndarray, 't d']:
    """Returns what the model is asked with, from memory or disk if it can.

    Args:
      names: as in `segment`.
      templates: as in `segment`.
      synonyms: as in `segment`. With 'max' there is a row per word, else one per name.

    Returns:
      Embeddings by CLIP; L2-normalised but for CLIPSeg.

    Raises:
      ValueError: names are none, blank or repeated, or too long for CLIP.
    """
    classes = parse_classes(names)
    return self.system.embed(classes, templates=templates, synonyms=synonyms).rows

  @enough_memory(_LESS)
  def segment(
    self,
    encoded: Any,
    names: Names,
    *,
    background: Names | None = None,
    templates: str | Sequence[str] | None = None,
    synonyms: str | None = None,
    threshold: float | None = None,
    rule: str | None = None,
    classifier: str | None = None,
    weight: float | None = None,
    panoptic: bool = False,
    heat: bool = False,
    examples: Examples | None = None,
    example_share: float | None = None,
    maps: bool = False,
  ) -> Segmentation | NamedMasks:
    """Gives pixels names.

    Args:
      encoded: what `encode` returned; or an image, encoded for this call alone.
      names: 'red ball, grass'; or one string per name; or {shown name: words}; or what
        `text.classes.read_names` read from a file.
      background: names that compete too; pixels that they win get no name.
      templates: name of a set, or sentences with a '{}'; None takes the model's.
      synonyms: 'mean' (the default) embeds the mean of a name's words, with 'max' the
        best word counts, and 'paper' embeds them as one string, "toilet, can".
      threshold: pixels whose `Segmentation.confidence` is lower get no name, 0..1. None
        is 0 for OVSeg; masks of CLIPSeg and CoSeg claim what they have with a
        probability of 0.3, however many do.
      rule: OVSeg: 'pixels' (the default), 'demo', or for masks 'each', without paint.
        CLIPSeg and CoSeg: 'A' (the default) to 'D', as `ops.merging` explains them.
      classifier: OVSeg: 'ensemble', 'clip' or 'proposer'.
      weight: OVSeg: of CLIP in the ensemble, 0..1.
      panoptic: OVSeg: whether to make segments with ids, too.
      heat: CLIPSeg and CoSeg: whether the names' heat maps are kept.
      examples: CLIPSeg: for a name, pictures and masks that replace its prompt.
      example_share: CLIPSeg: of the pictures in the prompt, 0..1 (default 1); the
        rest is the text's.
      maps: whether `Segmentation.confidence_map` is kept, and with it all masks.

    Raises:
      ValueError: names are none, blank, repeated, or too long for CLIP; or an option
        is wrong, or does not go with the model or the rule.
    """
    options = _given(
      templates=templates,
      synonyms=synonyms,
      threshold=threshold,
      rule=rule,
      classifier=classifier,
      weight=weight,
      panoptic=panoptic,
      heat=heat,
      examples=None if examples is None else _read(examples),
      example_share=example_share,
      maps=maps,
    )
    return self._segment(encoded, names, background, options)

  def _segment(
    self,
    encoded: Any,
    names: Names,
    background: Names | None,
    options: Mapping[str, Any],
  ) -> Segmentation | NamedMasks:
    classes = parse_classes(names)
    check_options(self.system.kind, options_of(type(self.system).segment), options)
    behind = parse_background(background, classes)
    if isinstance(encoded, IMAGE_TYPES):
      encoded = self.encode(encoded)
    found = self.system.segment(encoded, classes, behind, **options)
    photo = self._photos.get(id(encoded))
    if isinstance(found, Segmentation) and photo is not None:
      return dataclasses.replace(found, photo=photo)
    return found

  def explain(
    self,
    image: ImageLike,
    names: Names,
    *,
    at: tuple[int, int] | None = None,
    background: Names | None = None,
    proposals: int = 5,
    classifier: str | None = None,
    weight: float | None = None,
  ) -> Explanation:
    """Shows how an OVSeg came to its labels; `figure` of the result draws it.

    Args:
      image: a path, a Pillow image or an array.
      names: as in `segment`.
      at: x and y of the pixel that is explained; None: the middle.
      background: as in `segment`.
      proposals: how many are kept, those that decided most there.
      classifier: as in `segment`.
      weight: as in `segment`.

    Raises:
      ValueError: as in `segment`; or a model without proposals, or a pixel outside.
    """
    classes = parse_classes(names)
    return explain(
      self.system,
      as_rgb(image),
      classes,
      parse_background(background, classes),
      at=at,
      proposals=proposals,
      classifier=classifier,
      weight=weight,
    )

  def agreement(self, image: ImageLike, names: Names, **options: Any) -> float:
    """Returns the share of pixels that the exact mode and dtype label the same, 0..1.

    Args:
      image: a path, a Pillow image or an array; it is not cut into windows.
      names: as in `segment`.
      options: of `segment`.

    Raises:
      ValueError: as in `segment`; or the model has one mode only.
    """
    pair = self, Segmenter(self.system.exact())
    first, second = (one.segment(one.encode(image), names, **options) for one in pair)
    return first.agreement(second)


def _given(**options: Any) -> dict[str, Any]:
  """Leaves out what is as it is by default."""
  return {k: v for k, v in options.items() if v is not None and v is not False}


def _read(examples: Examples) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
  return {
    name: [(as_rgb(image), np.asarray(mask)) for image, mask in shown]
    for name, shown in examples.items()
  }
