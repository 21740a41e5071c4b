"""Class names as CLIP embeds them, from memory or disk where they were asked before.

Everything that needs the embeddings of names gets them here: prediction, evaluation
and training see the same numbers.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from ovs_jax.core.files import Path, fingerprint
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Float, Int, Params
from ovs_jax.models import clip
from ovs_jax.models.clip_mix import join_names, towers
from ovs_jax.models.ovseg_config import OvSegConfig
from ovs_jax.text.cache import Store, cache_root
from ovs_jax.text.classes import Classes
from ovs_jax.text.templates import fill, sentences

_VERSION = 1  # of how names become rows; part of every key
# What of `ClipConfig` does not change an embedding of text.
_OTHER = ('image_size', 'patch', 'prompt_depth', 'remat', 'unroll')
_OTHER = (*_OTHER, 'image_tower', 'pixels', 'scores')

Templates = str | Sequence[str]


def embed_names(
  config: clip.ClipConfig,
  params: Params,
  names: Sequence[str],
  templates: Templates,
  *,
  cache: Path | None = None,
) -> Float[np.ndarray, 'k d']:
  """Returns one L2-normalised row per name: the mean over the templates.

  Args:
    config: of the CLIP whose `params` are given.
    params: the whole CLIP's parameters.
    names: class names.
    templates: name of a set, or sentences with a '{}'.
    cache: folder of embedded names, 'off', or None for the default one.

  Raises:
    ValueError: a name is too long for CLIP, or the templates are wrong.
  """
  return NameEmbedder(config, params, cache=cache).names(names, templates)


class NameEmbedder:
  """The text tower of one CLIP, and all rows that it was asked for."""

  def __init__(
    self, config: clip.ClipConfig, params: Params, *, cache: Path | None = None
  ) -> None:
    """Embeds nothing yet.

    Args:
      config: of the CLIP whose `params` are given.
      params: the whole CLIP's parameters.
      cache: folder of embedded names; 'off' keeps none; None takes
        $OVS_JAX_TEXT_CACHE, and without that ~/.cache/ovs_jax/text.
    """
    self._config = dataclasses.replace(config, dtype='float32')
    self._params = params
    self._root = cache_root(cache)
    self.rows: dict[tuple[Templates, str], np.ndarray] = {}

  def names(
    self, names: Sequence[str], templates: Templates
  ) -> Float[np.ndarray, 'k d']:
    """Returns the mean over the templates of each name, L2-normalised.

    Only names that are neither in memory nor on disk go through the text tower, in one
    batch. The batch rounds: a row may differ by 1e-6 from that of the name alone.

    Raises:
      ValueError: a name is too long for CLIP, or the templates are wrong.
    """
    key = templates if isinstance(templates, str) else tuple(templates)
    new = [n for n in dict.fromkeys(names) if (key, n) not in self.rows]
    if new:
      filled = fill(key, new)
      store = self._store(key)
      known = {} if store is None else store.read(new)
      missing = [i for i, name in enumerate(new) if name not in known]
      if missing:
        found = self._embed([filled[i] for i in missing])
        fresh = dict(zip([new[i] for i in missing], found, strict=True))
        if store is not None:
          store.add(fresh)
        known.update(fresh)
      self.rows.update({(key, name): row for name, row in known.items()})
    return np.stack([self.rows[key, name] for name in names])

  def classes(
    self, classes: Classes, templates: Templates, synonyms: str
  ) -> tuple[Float[np.ndarray, 't d'], Int[np.ndarray, 't']]:
    """Returns the rows of all classes, and which class each row belongs to.

    Args:
      classes: names and the words that stand for them.
      templates: name of a set, or sentences with a '{}'.
      synonyms: one of `text.classes.SYNONYMS`. With 'max' a class has one row per
        word, with the others one row.
    """
    words = classes.texts(synonyms)
    flat = [word for texts in words for word in texts]
    rows = self.names(flat, templates)
    owner = np.repeat(np.arange(len(words)), [len(texts) for texts in words])
    if synonyms == 'max' or len(flat) == len(words):
      return rows, owner.astype(np.int32)
    means = [_mean_direction(rows[owner == k]) for k in range(len(words))]
    return np.stack(means), np.arange(len(words), dtype=np.int32)

  def _embed(self, prompts: list[list[str]]) -> Float[np.ndarray, 'k d']:
    return clip.encode_prompts(self._config, self._params, prompts)

  def _store(self, templates: Templates) -> Store | None:
    if self._root is None:
      return None
    folder = self._root / self._tower / fingerprint(sentences(templates))
    return Store(folder, width=self._config.embed_dim)

  @functools.cached_property
  def _tower(self) -> str:
    return tower_hash(self._config, self._params)


class SeveralEmbedders:
  """The text towers of an OVSeg's CLIPs, asked together.

  Each keeps its own rows in memory and on disk. Texts are one row for all: see
  `models.clip_mix.join_names`.
  """

  def __init__(self, embedders: Sequence[NameEmbedder]) -> None:
    """Embeds nothing yet."""
    self.each = tuple(embedders)

  @classmethod
  def of(
    cls, config: OvSegConfig, params: Params, *, cache: Path | None = None
  ) -> 'SeveralEmbedders | NameEmbedder':
    """Returns what embeds names for an OVSeg; with one CLIP, its embedder.

    Args:
      config: of the OVSeg whose `params` are given.
      params: the whole OVSeg's parameters.
      cache: as `NameEmbedder` takes it.
    """
    found = [
      NameEmbedder(one.clip, own, cache=cache) for one, own in towers(config, params)
    ]
    return found[0] if len(found) == 1 else cls(found)

  def names(
    self, names: Sequence[str], templates: Templates
  ) -> Float[np.ndarray, 'k e']:
    """Returns a row for each name; see `NameEmbedder.names`."""
    return join_names([one.names(names, templates) for one in self.each])

  def classes(
    self, classes: Classes, templates: Templates, synonyms: str
  ) -> tuple[Float[np.ndarray, 't e'], Int[np.ndarray, 't']]:
    """Returns rows and the class of each; see `NameEmbedder.classes`."""
    found = [one.classes(classes, templates, synonyms) for one in self.each]
    return join_names([rows for rows, _ in found]), found[0][1]


def tower_hash(config: clip.ClipConfig, params: Params) -> str:
  """Returns a digest of all that an embedding of text depends on, but the text.

  That is the text tower's parameters, its part of the configuration with the context
  length, and the arithmetic: a GPU's rounding is not a CPU's.
  """
  sizes = {
    key: value
    for key, value in dataclasses.asdict(config).items()
    if key not in _OTHER and not key.startswith('vision_')
  }
  arithmetic = [jax.default_backend(), str(jax.config.jax_default_matmul_precision)]
  digest = hashlib.sha256(fingerprint([_VERSION, sizes, arithmetic]).encode())
  text: Mapping[str, np.ndarray] = flatten(params['text'])
  for path in sorted(text):
    value = np.ascontiguousarray(text[path])
    digest.update(f'{path} {value.dtype} {value.shape}'.encode())
    digest.update(value.reshape(-1).view(np.uint8))
  return digest.hexdigest()[:16]


def _mean_direction(rows: Float[np.ndarray, 'n d']) -> Float[np.ndarray, 'd']:
  """The mean, L2-normalised; a single row stays as it is, to the last bit."""
  if len(rows) == 1:
    return rows[0]
  mean = rows.mean(axis=0)
  return mean / np.linalg.norm(mean)
