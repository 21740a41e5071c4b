"""CLIPSeg as a system: a mask for each name, or for those that CLIP chooses (CoSeg)."""

import copy
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Bool, Float, Int, Params, UInt8
from ovs_jax.inference.clipseg_prompts import average, squash, visual_prompt
from ovs_jax.inference.coseg_no_training import LabelStage
from ovs_jax.inference.prompted import Examples, LabelledMasks
from ovs_jax.inference.system import (
  MaskChunk,
  Texts,
  best_per_owner,
  network_size,
)
from ovs_jax.models import clipseg
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.models.clipseg import ClipSegConfig
from ovs_jax.text.classes import Classes, check_synonyms
from ovs_jax.text.templates import fill, sentences
from ovs_jax.text.tokenizer import tokenize

PROMPT = ('a photo of a {}.',)  # one of the sentences that CLIPSeg was trained with


@dataclasses.dataclass(frozen=True)
class EncodedPrompted:
  """A picture as CLIPSeg sees it.

  Attributes:
    size: height and width of the picture.
    network_size: of the network's input.
    activations: of CLIP.
    embedding: by which labels are chosen; None without a label stage.
  """

  size: tuple[int, int]
  network_size: tuple[int, int]
  activations: tuple[Float[Array, '1 n e'], ...]
  embedding: Float[np.ndarray, 'd'] | None


class ClipSegSystem(LabelledMasks):
  """A mask for every name; with a label stage, for the names that fit best."""

  kind = 'clipseg'

  def __init__(
    self,
    config: ClipSegConfig,
    params: Params,
    *,
    templates: str | Sequence[str] = PROMPT,
    stage: LabelStage | None = None,
    labels: int = 0,
    keep_aspect: bool = False,
  ) -> None:
    """Puts the parameters on the default device.

    Args:
      config: of the model whose `params` are given.
      params: with the subtrees `clip` and `decoder`.
      templates: sentences that names are put into, or the name of a set.
      stage: what chooses labels; None asks for all names.
      labels: k, how many it chooses.
      keep_aspect: whether pictures keep theirs; they are squashed otherwise.

    Raises:
      ValueError: the decoder is of another CLIP, or a stage without labels.
    """
    clipseg.check_decoder(config, params)
    if stage is not None and labels < 1:
      raise UserError(f'{labels} labels per picture; choose at least 1')
    self.config = config
    self.templates = templates
    self.stage = stage
    self.labels = labels
    self._keep_aspect = keep_aspect
    self._params = jax.tree.map(jnp.asarray, dict(params))
    self._rows: dict[tuple[tuple[str, ...], str], np.ndarray] = {}

  def on(self, device: jax.Device) -> 'ClipSegSystem':
    """Returns the same with its parameters on a device, where it then works."""
    other = copy.copy(self)
    other._params = jax.device_put(self._params, device)
    if self.stage is not None:
      other.stage = self.stage.on(device)
    return other

  def embed(
    self, classes: Classes, *, templates: Any = None, synonyms: str = 'mean'
  ) -> Texts:
    """Embeds names; 'mean' averages the words' embeddings as they are.

    Args:
      classes: names and words.
      templates: of the prompts; None takes those of `__init__`.
      synonyms: 'mean' of a name's words, 'max' (the best word counts), or 'paper' (one
        string with commas).

    Raises:
      ValueError: there are no names, or one is too long for CLIP.
    """
    if not len(classes):
      raise UserError('no names given; expected at least one')
    templates = sentences(self.templates if templates is None else templates)
    words = classes.texts(check_synonyms(synonyms))
    flat = [word for texts in words for word in texts]
    rows = self._prompts(templates, flat)
    owner = np.repeat(np.arange(len(words)), [len(texts) for texts in words])
    if synonyms != 'max' and len(flat) > len(words):
      rows = np.stack([rows[owner == k].mean(axis=0) for k in range(len(words))])
      owner = np.arange(len(words))
    anchors = None
    if self.stage is not None:
      anchors, _ = self.stage.embedder.classes(classes, self.stage.templates, synonyms)
    return Texts(len(classes), owner.astype(np.int32), rows, anchors)

  def _prompts(
    self, templates: tuple[str, ...], words: Sequence[str]
  ) -> Float[np.ndarray, 't d']:
    """Mean over the templates of the embeddings, which are kept in memory."""
    new = [w for w in dict.fromkeys(words) if (templates, w) not in self._rows]
    if new:
      length = self.config.clip.context_length
      flat = [text for texts in fill(templates, new) for text in texts]
      rows = clipseg.embed_texts(
        self.config.clip,
        self._params['clip'],
        flat,
        functools.partial(tokenize, context_length=length),
      ).reshape(len(new), len(templates), -1)
      means = zip(new, rows.mean(axis=1), strict=True)
      self._rows.update({(templates, word): row for word, row in means})
    return np.stack([self._rows[templates, word] for word in words])

  def show(
    self, texts: Texts, classes: Classes, examples: Examples, *, share: float = 1.0
  ) -> Texts:
    """Replaces the prompts of some names by example pictures.

    Args:
      texts: of `classes`, one row per name.
      classes: the names.
      examples: for a name, pictures (RGB, 0..255) with the mask of the thing.
      share: of the pictures in the prompt, 0..1; the rest is the text's.

    Raises:
      ValueError: an unknown name, a mask that does not fit, or a row per word.
    """
    if not 0 <= share <= 1:
      raise UserError(f'the share of the examples must lie in 0..1, got {share}')
    if len(texts.owner) > texts.count:
      raise UserError("examples need synonyms='mean' or 'paper', one prompt per name")
    rows = np.array(texts.conditions)
    for name, shown in examples.items():
      if name not in classes.names:
        raise UserError(
          f'examples of {name!r}, which is not among the names {list(classes.names)}'
        )
      mean = average([self._example(image, mask) for image, mask in shown])
      k = classes.names.index(name)
      rows[k] = share * mean + (1 - share) * rows[k]
    return dataclasses.replace(texts, conditions=rows)

  def _example(
    self, image: UInt8[np.ndarray, 'h w 3'], mask: Any
  ) -> Float[np.ndarray, 'd']:
    side, mask = self.config.image_size, np.asarray(mask).astype(bool)
    if mask.shape != image.shape[:2]:
      raise UserError(
        f'the mask has {mask.shape} pixels, its example picture {image.shape[:2]}'
      )
    pixels = np.asarray(clipseg.normalise(jnp.asarray(image)))
    prompt = visual_prompt(pixels, mask, side)
    return np.asarray(_embed_example(self.config, self._params, prompt[None]))[0]

  def encode(self, image: UInt8[np.ndarray, 'h w 3']) -> EncodedPrompted:
    """Runs CLIP; compiles for each new size of the network's input.

    Raises:
      ValueError: the picture is smaller than a patch.
    """
    c = self.config
    size = network_size(
      image.shape[:2], c.image_size, c.clip.patch, keep_aspect=self._keep_aspect
    )
    pixels = clipseg.normalise(jnp.asarray(squash(image, size)[None]))
    return EncodedPrompted(
      size=image.shape[:2],
      network_size=size,
      activations=clipseg.encode(c, self._params, pixels),
      embedding=None if self.stage is None else self.stage.embed_image(image),
    )

  def candidates(
    self,
    encoded: EncodedPrompted,
    texts: Texts,
    allowed: Bool[np.ndarray, 'k'] | None = None,
  ) -> Int[np.ndarray, 'n']:
    """Returns the names to segment: all of them, or the k that fit best, in order."""
    found = np.arange(texts.count)
    if (cosines := self.cosines(encoded, texts)) is not None:
      found = np.argsort(-cosines, kind='stable')
    if allowed is not None:
      found = found[allowed[found]]
    return found if self.stage is None else found[: self.labels]

  def cosines(
    self, encoded: EncodedPrompted, texts: Texts
  ) -> Float[np.ndarray, 'k'] | None:
    """Returns those of the picture with each name's best word; None without a stage."""
    if self.stage is None:
      return None
    found = (texts.anchors @ encoded.embedding)[None]
    return best_per_owner(found, texts.owner, texts.count)[0]

  def masks(
    self,
    encoded: EncodedPrompted,
    texts: Texts,
    allowed: Bool[np.ndarray, 'k'] | None = None,
  ) -> Iterator[MaskChunk]:
    """Yields `config.chunk` masks at a time, whatever the number of names."""
    chosen = self.candidates(encoded, texts, allowed)
    rows = np.concatenate(
      [np.flatnonzero(texts.owner == k) for k in chosen] or [np.zeros(0, int)]
    )
    if not len(rows):
      return
    labels = texts.owner[rows]
    chunks = clipseg.decode_chunks(
      self.config,
      self._params,
      encoded.activations,
      texts.conditions[rows],
      encoded.network_size,
    )
    for start, logits in chunks:
      part = labels[start : start + logits.shape[1]]
      yield MaskChunk(logits[0], part.astype(np.int32), None)


@functools.partial(jax.jit, static_argnums=0)
def _embed_example(
  config: ClipSegConfig, params: Params, image: Float[Array, 'k s s 3']
) -> Float[Array, 'k d']:
  return encode_images(config.clip, params['clip'], image, resize=True)
