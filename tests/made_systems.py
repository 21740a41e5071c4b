"""Systems without a network: masks and tokens follow from a picture's colours."""

import dataclasses
import hashlib

import numpy as np

from ovs_jax.core.types import NO_LABEL
from ovs_jax.inference.system import MaskChunk, MaskSystem, Texts

WIDTH, CELLS = 16, 16


def draw(text, *size):
  """Returns normal numbers, the same ones for a text."""
  seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'big')
  return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def unit(rows):
  return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@dataclasses.dataclass
class Made(MaskSystem):
  """Eight slots with tokens, or a mask for each of so many names that fit best."""

  kind: str = 'coseg'
  labels: int = 0

  def on(self, device):
    return self

  def embed(self, classes, *, templates=None, synonyms='mean'):
    rows = unit(np.stack([draw(name, WIDTH) for name in classes.names]))
    owner = np.arange(len(rows), dtype=np.int32)
    if self.kind == 'clipseg':
      return Texts(len(rows), owner, 3 * rows, None)
    return Texts(len(rows), owner, None, np.concatenate([rows, rows.mean(0)[None]]))

  def encode(self, image):
    h, w = (side // CELLS * CELLS for side in image.shape[:2])
    cells = image[:h, :w].reshape(CELLS, h // CELLS, CELLS, w // CELLS, 3)
    return cells.mean(axis=(1, 3)) / 128 - 1  # y x 3

  def _cosines(self, encoded, texts, allowed):
    tokens = unit(draw('tokens', 8, WIDTH) + encoded.mean((0, 1)) @ draw('t', 3, WIDTH))
    cosines = (tokens @ texts.anchors.T).astype(np.float32)
    if allowed is not None:
      cosines[:, :-1] = np.where(allowed, cosines[:, :-1], -np.inf)
    return cosines

  def _fit(self, encoded, texts):
    return texts.conditions @ (encoded.mean((0, 1)) @ draw('fit', 3, WIDTH))

  def cosines(self, encoded, texts):
    chooses = self.kind == 'clipseg' and self.labels
    return np.tanh(self._fit(encoded, texts)) if chooses else None

  def candidates(self, encoded, texts, allowed=None):
    if self.kind == 'coseg':
      labels = self._cosines(encoded, texts, allowed).argmax(axis=1)
      return np.unique(labels[labels < texts.count])
    found = np.argsort(-self._fit(encoded, texts), kind='stable')
    found = found if allowed is None else found[allowed[found]]
    return found[: self.labels] if self.labels else found

  def masks(self, encoded, texts, allowed=None):
    rows, cosines = draw('slots', 8, WIDTH), None
    labels = self.candidates(encoded, texts, allowed).astype(np.int32)
    if self.kind == 'coseg':
      cosines = self._cosines(encoded, texts, allowed)
      labels = cosines.argmax(axis=1)
      labels = np.where(labels == texts.count, NO_LABEL, labels).astype(np.int32)
    elif len(labels):
      rows = texts.conditions[labels]
    else:
      return
    logits = 4 * np.einsum('yxc,cd,nd->nyx', encoded, draw('l', 3, WIDTH), rows)
    yield MaskChunk(logits.astype(np.float32), labels, cosines)


def systems():
  """Returns one of each kind."""
  return {
    'no_training': Made('clipseg', labels=6),
    'clipseg': Made('clipseg'),
    'prefix': Made(),
  }
