"""The CLIPs of an OVSeg: what they see of regions, and what becomes of their scores.

There may be several, whose probabilities of names are averaged. The first is the one
whose names the proposer was trained with. Crops are cut once for all CLIPs that want
them in the same size and units. Embeddings by all CLIPs lie one after the other, those
of regions as well as those of names, so that whatever keeps, chooses or orders them
need not know how many CLIPs there are.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Bool, Float, Int, Num, Params
from ovs_jax.models.clip_config import ClipConfig
from ovs_jax.models.clip_fast import encode_crops
from ovs_jax.models.ovseg_config import OvSegConfig
from ovs_jax.ops.ensemble import TEMPERATURE, check_weights, class_logits
from ovs_jax.ops.regions import Regions, crop_regions, map_valid, patch_mask

# Crops through CLIP at once, at most: as few as keep the device busy, since the last
# chunk is filled up with crops that nobody wants.
CROPS_AT_ONCE = {'cpu': 8}
_CROPS_ELSEWHERE = 32


@dataclasses.dataclass(frozen=True)
class Mix:
  """How the scores of several CLIPs become one.

  Each makes probabilities of its cosines by its own rule: a softmax over the names,
  with the papers' temperature, or with its own where it was trained with sigmoids
  (`temperature`). Their weighted mean takes the place of one CLIP's probabilities,
  whatever kinds there are.

  Attributes:
    widths: of the CLIPs' embeddings.
    temperatures: of their cosines.
    weights: in the mean; in sum 1.
  """

  widths: tuple[int, ...]
  temperatures: tuple[float, ...]
  weights: tuple[float, ...] = (1.0,)

  def weighed(self, weights: Sequence[float]) -> 'Mix':
    """Returns the same with other weights, of any sum; none: all count the same.

    Raises:
      ValueError: they are not one for each CLIP, or one is negative, or all are 0.
    """
    count = len(self.widths)
    check_weights(weights, count)
    given = tuple(weights) or (1.0,) * count
    shares = tuple(float(x / sum(given)) for x in given)
    return dataclasses.replace(self, weights=shares)

  def split(self, text: Float[Array, 'k e']) -> list[Float[Array, 'k _']]:
    """Returns the names by each CLIP, L2-normalised, of what `join_names` returned."""
    if len(self.widths) == 1:
      return [text]
    parts = jnp.split(text, np.cumsum(self.widths)[:-1], axis=1)
    return [part * len(parts) ** 0.5 for part in parts]

  def logits(
    self, regions: Float[Array, 'q e'], text: Float[Array, 'k e']
  ) -> Float[Array, 'm q k']:
    """Returns the logits of each CLIP; `ops.ensemble.average` makes one of them.

    Args:
      regions: by all CLIPs, from `embed_all`.
      text: by all CLIPs, from `join_names`.
    """
    rows = jnp.split(regions, np.cumsum(self.widths)[:-1], axis=1)
    parts = zip(rows, self.split(text), self.temperatures, strict=True)
    return jnp.stack([class_logits(*part) for part in parts])


def mix_of(config: OvSegConfig, params: Params) -> Mix:
  """Returns how the CLIPs of a model are averaged; one is its own average."""
  found = towers(config, params)
  mix = Mix(
    tuple(one.clip.embed_dim for one, _ in found),
    tuple(temperature(one.clip, own) for one, own in found),
  )
  return mix.weighed(config.clip_weights)


def temperature(config: ClipConfig, params: Params) -> float:
  """Returns what cosines of regions are multiplied with, before the softmax over names.

  The papers' constant for a CLIP that was trained with a softmax. One that was trained
  with sigmoids has its own, `exp(logit_scale)`; its bias is the same for all names, and
  drops out: the ensemble asks which name it is, and not whether any is right.

  Args:
    config: of the CLIP.
    params: its parameters.
  """
  if config.scores == 'softmax':
    return TEMPERATURE
  return float(np.exp(np.asarray(params['logit_scale'], np.float32)))


def join_names(rows: Sequence[Float[np.ndarray, 'k _']]) -> Float[np.ndarray, 'k e']:
  """Puts names by all CLIPs one after the other, L2-normalised.

  Their products are the means of the CLIPs' cosines.

  Args:
    rows: by each CLIP, L2-normalised.
  """
  if len(rows) == 1:
    return rows[0]
  return np.concatenate(rows, axis=1) / np.float32(len(rows) ** 0.5)


def clip_key(index: int) -> str:
  """Returns the subtree of parameters of a CLIP: `clip`, then `clip_2` and so on."""
  return f'clip_{index + 1}' if index else 'clip'


def towers(
  config: OvSegConfig, params: Params
) -> tuple[tuple[OvSegConfig, Params], ...]:
  """Returns for each CLIP the model that has it alone, and the CLIP's parameters."""
  return tuple((one, params[clip_key(i)]) for i, one in enumerate(config.alone))


def width(config: OvSegConfig) -> int:
  """Returns the length of the embeddings by all CLIPs."""
  return sum(clip.embed_dim for clip in config.clips)


def cut_regions(
  config: OvSegConfig,
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 'q h w'],
  *,
  cut: bool = True,
) -> tuple[Regions, ...]:
  """Cuts the crops for all CLIPs, once for those that see the same.

  Args:
    config: the model's.
    image: RGB, 0..255.
    masks: probabilities.
    cut: as in `ops.regions.crop_regions`.
  """
  different = {_view(one): one for one in reversed(config.alone)}
  return tuple(
    crop_regions(image, masks, one.region, statistics=one.clip.pixels, cut=cut)
    for one in map(different.__getitem__, _views(config))
  )


def _view(config: OvSegConfig) -> tuple[object, ...]:
  """What the crops of a CLIP depend on."""
  return config.region.size, config.clip.pixels.mean, config.clip.pixels.std


def _views(config: OvSegConfig) -> list[tuple[object, ...]]:
  return [*dict.fromkeys(map(_view, config.alone))]


def _each(
  config: OvSegConfig, params: Params, regions: Sequence[Regions]
) -> list[tuple[OvSegConfig, Params, Regions]]:
  """Returns for each CLIP what `towers` does, and its crops."""
  views = _views(config)
  return [
    (one, own, regions[views.index(_view(one))]) for one, own in towers(config, params)
  ]


def embed_all(
  config: OvSegConfig, params: Params, regions: Sequence[Regions]
) -> Float[Array, 'q e']:
  """Returns the embeddings of crops by all CLIPs, one after the other.

  Args:
    config: the model's.
    params: with the subtrees of all CLIPs.
    regions: from `cut_regions`; see `embed_regions`.
  """
  return jnp.concatenate(
    [embed_regions(*each) for each in _each(config, params, regions)], axis=1
  )


def embed_places(
  config: OvSegConfig,
  params: Params,
  regions: Sequence[Regions],
  places: Int[Array, 'c'],
) -> Float[Array, 'c e']:
  """Returns the embeddings of some crops; the other arguments are `embed_all`'s."""
  found = [
    embed_crops(one, own, crops.pixels[places], crops.masks[places])
    for one, own, crops in _each(config, params, regions)
  ]
  return jnp.concatenate(found, axis=1)


def embed_regions(
  config: OvSegConfig, params: Params, regions: Regions
) -> Float[Array, 'q d']:
  """Returns CLIP's embeddings of the crops, not L2-normalised.

  Args:
    config: the model's.
    params: CLIP's.
    regions: crops of one image, or of several one after the other. Only valid ones
      go through CLIP; the rows of the others are ones.
  """

  def embed(places: Array) -> Array:
    return embed_crops(config, params, regions.pixels[places], regions.masks[places])

  count = len(regions.valid)
  shown = _shown_patches(config, regions.masks)
  return map_valid(
    embed,
    regions.valid,
    jnp.ones((count, config.clip.embed_dim)),
    chunk=chunk_size(config),
    # Crops that show as many patches together: the largest decides for all.
    order=None if shown is None else jnp.sum(shown, axis=1),
  )


def chunk_size(config: OvSegConfig) -> int:
  """Returns how many crops go through CLIP at once."""
  most = CROPS_AT_ONCE.get(jax.default_backend(), _CROPS_ELSEWHERE)
  return min(config.chunk, most)


def embed_crops(
  config: OvSegConfig,
  params: Params,
  pixels: Float[Array, 'c s s 3'],
  masks: Float[Array, 'c s s'],
) -> Float[Array, 'c d']:
  """Returns CLIP's embeddings of crops, all at once, not L2-normalised.

  Args:
    config: the model's.
    params: CLIP's.
    pixels: the crops, normalised.
    masks: which of their pixels are foreground; patches without any are replaced by
      the mask prompts.
  """
  keep = _shown_patches(config, masks)
  return encode_crops(config.clip, params, pixels, keep)


def _shown_patches(
  config: OvSegConfig, masks: Float[Array, 'c s s']
) -> Bool[Array, 'c n'] | None:
  """Returns which patches keep their own content; None without mask prompts."""
  return patch_mask(masks, config.clip.patch) if config.clip.prompt_depth else None
