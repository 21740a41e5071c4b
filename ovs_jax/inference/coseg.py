"""CoSeg as a system: slots with a token and a mask each; names only label the slots."""

import copy
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import NO_LABEL, Array, Bool, Float, Int, Params, UInt8
from ovs_jax.inference.coseg_views import VIEWS, Slots, slots_of
from ovs_jax.inference.names import NameEmbedder
from ovs_jax.inference.prompted import LabelledMasks
from ovs_jax.inference.system import MaskChunk, Texts, best_per_owner, network_size
from ovs_jax.models import coseg
from ovs_jax.models.coseg import UNLABELED, CoSeg, CoSegConfig
from ovs_jax.text.classes import Classes, check_synonyms


@dataclasses.dataclass(frozen=True)
class EncodedSlots:
  """What CoSeg predicts for a picture, whatever the names.

  Attributes:
    size: height and width of the picture.
    tokens: of the slots, L2-normalised.
    logits: of their masks.
  """

  size: tuple[int, int]
  tokens: Float[np.ndarray, 'n d']
  logits: Float[np.ndarray, 'n y x']


class CoSegSystem(LabelledMasks):
  """The slots of a trained CoSeg, of either language model."""

  kind = 'coseg'

  def __init__(
    self,
    config: CoSegConfig,
    params: Params,
    *,
    templates: str | Sequence[str],
    text_cache: Path | None = None,
    view: str = VIEWS[0],
  ) -> None:
    """Puts the parameters on the default device.

    Args:
      config: of the model whose `params` are given.
      params: all of them.
      templates: sentences around names; training has one.
      text_cache: folder of embedded names, 'off', or None for the default one.
      view: what it sees of pictures that are no squares, one of `coseg_views.VIEWS`.

    Raises:
      ValueError: an unknown view.
    """
    lookup(dict.fromkeys(VIEWS), view, 'view')
    self.config, self.view = config, view
    self.templates = templates
    self._params = jax.tree.map(jnp.asarray, dict(params))
    self._embedder = NameEmbedder(config.clip, self._params['clip'], cache=text_cache)

  def on(self, device: jax.Device) -> 'CoSegSystem':
    """Returns the same with its parameters on a device, where it then works."""
    other = copy.copy(self)
    other._params = jax.device_put(self._params, device)
    return other

  def embed(
    self, classes: Classes, *, templates: Any = None, synonyms: str = 'mean'
  ) -> Texts:
    """Embeds names and "unlabeled", which slots without a name resemble.

    Raises:
      ValueError: there are no names, or one is too long for CLIP.
    """
    if not len(classes):
      raise UserError('no names given; expected at least one')
    templates = self.templates if templates is None else templates
    rows, owner = self._embedder.classes(classes, templates, check_synonyms(synonyms))
    none = self._embedder.names([UNLABELED], templates)
    return Texts(len(classes), owner, None, np.concatenate([rows, none]))

  def encode(self, image: UInt8[np.ndarray, 'h w 3']) -> EncodedSlots:
    """Predicts all slots; names play no part in it.

    Raises:
      ValueError: the picture is smaller than a patch, or too long for windows.
    """
    c = self.config
    network_size(image.shape[:2], c.image_size, c.clip.patch, keep_aspect=False)
    found = slots_of(image, c.image_size, self.view, self._predict)
    return EncodedSlots(image.shape[:2], *found)

  def _predict(self, square: UInt8[np.ndarray, 's s 3']) -> Slots:
    tokens, logits = predict(self.config, self._params, jnp.asarray(square[None]))
    return np.asarray(tokens)[0], np.asarray(logits)[0]

  def _cosines(
    self, encoded: EncodedSlots, texts: Texts, allowed: Bool[np.ndarray, 'k'] | None
  ) -> Float[np.ndarray, 'n c']:
    """Returns the slots' cosines with the names and, last, with "unlabeled"."""
    cosines = encoded.tokens @ texts.anchors.T
    best = best_per_owner(cosines[:, :-1], texts.owner, texts.count)
    if allowed is not None:
      best = np.where(allowed[None], best, np.float32(-np.inf))
    return np.concatenate([best, cosines[:, -1:]], axis=1)

  def candidates(
    self,
    encoded: EncodedSlots,
    texts: Texts,
    allowed: Bool[np.ndarray, 'k'] | None = None,
  ) -> Int[np.ndarray, 'n']:
    """Returns the names of the slots that have one, in the order of the slots."""
    labels = self._cosines(encoded, texts, allowed).argmax(axis=1)
    return np.array(list(dict.fromkeys(labels[labels < texts.count].tolist())), int)

  def masks(
    self,
    encoded: EncodedSlots,
    texts: Texts,
    allowed: Bool[np.ndarray, 'k'] | None = None,
  ) -> Iterator[MaskChunk]:
    """Yields all slots at once; those nearest to "unlabeled" have no label."""
    cosines = self._cosines(encoded, texts, allowed)
    labels = cosines.argmax(axis=1)
    labels = np.where(labels == texts.count, NO_LABEL, labels).astype(np.int32)
    yield MaskChunk(encoded.logits, labels, cosines)


@functools.partial(jax.jit, static_argnums=0)
def predict(
  config: CoSegConfig, params: Params, image: UInt8[Array, 'b h w 3']
) -> tuple[Float[Array, 'b n d'], Float[Array, 'b n y x']]:
  """Returns the slots' tokens, L2-normalised, and the logits of their masks."""
  out = CoSeg(config).apply({'params': params}, image)
  return coseg.unit(out.tokens), out.logits
