"""The result of one picture while its masks, each with a label, come in."""

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Float, Int
from ovs_jax.inference.system import MaskChunk
from ovs_jax.ops import canvas as canvases
from ovs_jax.ops import merging
from ovs_jax.ops.evidence import Total
from ovs_jax.ops.painting import paint, whole

TAU = 0.08  # temperature of the labels in rule C, the paper's of its loss


class Painted:
  """Labels, their scores and the evidence of all names.

  Attributes:
    claims: by rule D, all pixels of each name that occurs; None by others.
  """

  def __init__(
    self,
    size: tuple[int, int],
    count: int,
    *,
    rule: str,
    threshold: float | None,
    heat: bool,
    maps: bool,
  ) -> None:
    """Starts without masks.

    Args:
      size: height and width of the picture.
      count: of the names that get labels; those from there on are background.
      rule: one of `merging.RULES`.
      threshold: probability from which a mask claims a pixel; None: the rule's own.
      heat: whether heat maps are kept.
      maps: whether what `map_of` needs is.
    """
    self._size, self._count, self._rule = size, count, rule
    own = 0.0 if rule == 'C' else merging.THRESHOLD
    self._threshold = own if threshold is None else threshold
    self._canvas: canvases.Canvas | None = None
    self._total = Total(size)
    self._soft: MaskChunk | None = None
    self._keep = heat or maps
    self._heat: np.ndarray | None = None
    self._best: dict[int, np.ndarray] = {}
    self.claims: dict[int, np.ndarray] | None = {} if rule == 'D' else None

  def add(self, chunk: MaskChunk) -> None:
    """Takes some of the masks."""
    slots = chunk.cosines is not None
    if self._keep:
      self._warm(chunk)
    if self._rule == 'C' and slots:
      self._soft = chunk  # with all slots
      return
    if self._canvas is None:
      self._canvas = canvases.Canvas(
        self._size,
        rule='B' if self._rule == 'B' else 'A',
        threshold=self._threshold,
        by_area=not slots,
      )
    self._canvas.add(chunk.logits, chunk.labels)
    self._total.add(chunk.logits, chunk.labels)
    if self.claims is not None:
      self._claim(chunk)

  def _claim(self, chunk: MaskChunk) -> None:
    p = canvases.probabilities(chunk.logits, self._size)
    for k in np.unique(chunk.labels).tolist():
      best = p[chunk.labels == k].max(axis=0)
      if not 0 <= k < self._count or not (best >= self._threshold).any():
        continue
      self._best[k] = np.maximum(self._best.get(k, 0), best)
      self.claims[k] = self._best[k] >= self._threshold

  def claimed(self) -> dict[int, float] | None:
    """Returns the mean probability of the names of `claims` in their pixels."""
    if self.claims is None:
      return None
    return {
      k: float(self._best[k][mask].mean(dtype=np.float64))
      for k, mask in self.claims.items()
    }

  def _warm(self, chunk: MaskChunk) -> None:
    p = canvases.sigmoid(chunk.logits)
    if self._heat is None:
      self._heat = np.zeros((self._count, *p.shape[1:]), np.float16)
    for k, mask in zip(chunk.labels, p, strict=True):
      if 0 <= k < self._count:
        self._heat[k] = np.maximum(self._heat[k], mask)

  def finish(self) -> tuple[Int[np.ndarray, 'h w'], Float[np.ndarray, 'h w']]:
    """Returns labels, background included, and their scores."""
    if (chunk := self._soft) is not None:
      return canvases.soft_labels(chunk.logits, chunk.cosines, self._size, tau=TAU)
    canvas = self._canvas or canvases.Canvas(self._size)
    return canvas.finish()

  def total(self) -> Float[np.ndarray, 'h w']:
    """Returns the evidence of all names, and of masks without one."""
    if self._soft is not None:
      # By rule C the shares that a mask gives to names and to "unlabeled" sum to 1.
      return canvases.probabilities(self._soft.logits, self._size).sum(axis=0)
    return self._total.finish()

  def others(self, labels: Int[np.ndarray, 'h w']) -> Float[np.ndarray, 'h w']:
    """Returns the evidence of the name that has most beside those of `finish`."""
    if (chunk := self._soft) is not None:
      weights = jnp.asarray(canvases.soft_weights(chunk.cosines, tau=TAU))
      view = whole(jnp.asarray(canvases.sigmoid(chunk.logits)), self._size)
      return np.asarray(paint(weights, [view])[2])
    return self._total.others(labels)

  def map_of(self, label: int) -> Float[np.ndarray, 'h w']:
    """Returns the evidence of a name; asked for after all masks came in."""
    if (chunk := self._soft) is not None:
      weights = canvases.soft_weights(chunk.cosines, tau=TAU)[:, label]
      p = canvases.probabilities(chunk.logits, self._size)
      return np.einsum('n,nhw->hw', weights, p)
    source = self.heat_maps()[label].astype(np.float32)
    return canvases.resize_map(source, self._size)

  def heat_maps(self) -> Float[np.ndarray, 'k y x'] | None:
    """Returns the names' heat maps, if they are kept."""
    if self._keep and self._heat is None:
      return np.zeros((self._count, 1, 1), np.float16)
    return self._heat
