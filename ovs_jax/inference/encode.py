"""From pictures to what segmenting them needs, whatever the names.

Three programs per picture: the proposer and the crops compile for few sizes, CLIP for
one. None of them waits for the host, and the crops of several pictures go through CLIP
together.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.images import resize_shortest
from ovs_jax.core.types import Array, Bool, Float, Int, Num, Params, UInt8
from ovs_jax.inference import one_pass
from ovs_jax.models import clip_mix, ovseg
from ovs_jax.models.clip_config import ClipConfig
from ovs_jax.ops.regions import Regions, map_valid

# 'exact': every valid proposal's crop goes through CLIP. 'filtered':
# without proposals that are hardly an object or nearly another one again. 'one_pass':
# CLIP sees the picture once, and each proposal asks for its patches. 'pooled': the same
# on the proposer's own picture, for CLIPs whose features are pooled (ConvNeXt's are a
# map, of which each proposal takes its part: FC-CLIP, Yu et al., 2023).
MODES = ('exact', 'filtered', 'one_pass', 'pooled')
_WITHOUT_CROPS = ('one_pass', 'pooled')


def modes_of(*clips: ClipConfig) -> tuple[str, ...]:
  """Returns those of `MODES` that one or several CLIPs can be asked in."""
  pooled = all(config.image_tower.pool != 'class' for config in clips)
  return tuple(mode for mode in MODES if pooled or mode != 'pooled')


Propose = Callable[..., ovseg.Proposed]  # with the arguments of `ovseg.propose`
PICTURES_AT_ONCE = 4  # whose crops are kept until CLIP has seen them


@dataclasses.dataclass(frozen=True)
class EncodedImage:
  """A picture as the networks see it, whatever the names.

  Attributes:
    size: height and width of the picture.
    network_size: the same after resizing, without padding.
    encoded: proposals and their embeddings; masks with padding, where they are 0.
    crops: in the modes that choose among them, those that CLIP may have to see.
  """

  size: tuple[int, int]
  network_size: tuple[int, int]
  encoded: ovseg.Encoded
  crops: 'Crops | None' = None


@dataclasses.dataclass(frozen=True)
class EncodedWindows:
  """A large picture as several that overlap.

  Attributes:
    size: height and width of the picture.
    corners: top and left of each window, in rows.
    windows: of one size. Their masks are at stride 4, before the sigmoid, as many
      windows take much memory.
    padded: height and width of a window as the network sees it.
  """

  size: tuple[int, int]
  corners: tuple[tuple[int, int], ...]
  windows: tuple[EncodedImage, ...]
  padded: tuple[int, int]

  def masks(self, window: int) -> Float[Array, 'q h w']:
    """Returns the masks of a window, with padding."""
    one = self.windows[window]
    return _full_masks(one.encoded.masks, self.padded, jnp.array(one.network_size))


Picture = EncodedImage | EncodedWindows


class Crops:
  """The crops of a picture, and the embeddings of those that CLIP has seen."""

  def __init__(
    self, config: ovseg.OvSegConfig, params: Params, regions: tuple[Regions, ...]
  ) -> None:
    """Embeds nothing yet; regions are those of `models.clip_mix.cut_regions`."""
    self._config, self._params, self._regions = config, params, regions
    self._valid = regions[0].valid
    self.rows = jnp.ones((len(self._valid), clip_mix.width(config)))
    self.seen = np.zeros(len(self._valid), bool)

  def embed(self, wanted: Bool[np.ndarray, 'q']) -> None:
    """Embeds the crops that are wanted, valid, and not embedded yet."""
    new = wanted & ~self.seen & np.asarray(self._valid)
    if new.any():
      self.rows = _embed_some(
        self._config, self._params, self._regions, jnp.asarray(new), self.rows
      )
      self.seen = self.seen | new


def encode_pictures(
  config: ovseg.OvSegConfig,
  params: Params,
  pictures: Sequence[UInt8[np.ndarray, '_ _ 3']],
  *,
  shortest: int,
  longest: int,
  mode: str,
  at_stride_4: bool = False,
  propose: Propose = ovseg.propose,
) -> list[EncodedImage]:
  """Runs the networks on pictures, as far as names play no part.

  Args:
    config: the model's.
    params: with the subtrees `proposer` and `clip`, and those of further CLIPs.
    pictures: RGB of any sizes.
    shortest: their shorter side for the networks.
    longest: limit of the longer one.
    mode: one of `MODES`.
    at_stride_4: whether masks stay at stride 4, before the sigmoid.
    propose: makes the masks.
  """
  done = []
  for start in range(0, len(pictures), PICTURES_AT_ONCE):
    part = pictures[start : start + PICTURES_AT_ONCE]
    small = [resize_shortest(p, shortest=shortest, longest=longest) for p in part]
    sizes = [(int(s.shape[0]), int(s.shape[1])) for s in small]
    padded = [ovseg.pad_to_bucket(s) for s in small]
    found = [
      propose_crops(
        config,
        params,
        image,
        jnp.array(size),
        crop=mode not in _WITHOUT_CROPS,
        propose=propose,
      )
      for image, size in zip(padded, sizes, strict=True)
    ]
    rows = _first_rows(config, params, small, found, mode)
    for i, (proposed, masks, cut) in enumerate(found):
      encoded = ovseg.Encoded(
        embeddings=proposed.embeddings,
        regions=rows[i],
        masks=proposed.mask_logits if at_stride_4 else masks,
        boxes=cut[0].boxes,
        valid=cut[0].valid,
        no_object=proposed.no_object,
      )
      crops = Crops(config, params, cut) if mode == 'filtered' else None
      done.append(EncodedImage(part[i].shape[:2], sizes[i], encoded, crops))
  return done


def _first_rows(
  config: ovseg.OvSegConfig,
  params: Params,
  pictures: Sequence[UInt8[np.ndarray, '_ _ 3']],
  found: Sequence[tuple[ovseg.Proposed, Array, tuple[Regions, ...]]],
  mode: str,
) -> list[Float[Array, 'q e']]:
  """Returns CLIP's embeddings; ones in the mode that chooses crops by the names."""
  if mode == 'exact':
    return embed_crops(config, params, tuple(cut for _, _, cut in found))
  if mode in _WITHOUT_CROPS:
    shown = zip(pictures, found, strict=True)
    enlarge = mode == 'one_pass'
    return [
      _embed_masks(config, params, picture, masks, enlarge=enlarge)
      for picture, (_, masks, _) in shown
    ]
  width = clip_mix.width(config)
  return [jnp.ones((len(proposed.embeddings), width)) for proposed, _, _ in found]


def _embed_masks(
  config: ovseg.OvSegConfig,
  params: Params,
  picture: UInt8[np.ndarray, 'h w 3'],
  masks: Float[Array, 'q H W'],
  *,
  enlarge: bool,
) -> Float[Array, 'q e']:
  """Shows a picture to each CLIP once; see `one_pass.embed_masks`."""
  found = [
    one_pass.embed_masks(one, own, jnp.asarray(picture), masks, enlarge=enlarge)
    for one, own in clip_mix.towers(config, params)
  ]
  return jnp.concatenate(found, axis=1)


def encode_windows(
  config: ovseg.OvSegConfig,
  params: Params,
  picture: UInt8[np.ndarray, 'h w 3'],
  *,
  window: int,
  overlap: float,
  shortest: int,
  longest: int,
  mode: str,
  propose: Propose = ovseg.propose,
) -> EncodedWindows:
  """Encodes a large picture in windows that overlap, each as a picture of its own.

  Args:
    config: the model's.
    params: with the subtrees `proposer` and `clip`.
    picture: RGB.
    window: side of the windows in the picture's pixels; they are no larger than it.
    overlap: share of a window that the next one repeats at least, 0..0.5.
    shortest: a window's shorter side for the networks.
    longest: limit of the longer one.
    mode: one of `MODES`.
    propose: makes the masks.
  """
  sides = [min(window, length) for length in picture.shape[:2]]
  tops, lefts = (
    window_starts(length, side, overlap)
    for length, side in zip(picture.shape[:2], sides, strict=True)
  )
  corners = tuple((y, x) for y in tops for x in lefts)
  cut = [picture[y : y + sides[0], x : x + sides[1]] for y, x in corners]
  parts = encode_pictures(
    config,
    params,
    cut,
    shortest=shortest,
    longest=longest,
    mode=mode,
    at_stride_4=True,
    propose=propose,
  )
  padded = ovseg.bucket_size(*parts[0].network_size)
  return EncodedWindows(picture.shape[:2], corners, tuple(parts), padded)


def window_starts(length: int, side: int, overlap: float) -> list[int]:
  """Spreads as few windows as possible evenly over an axis."""
  stride = max(int(side * (1 - overlap)), 1)
  count = -(-(length - side) // stride) + 1
  return [round(x) for x in np.linspace(0, length - side, count)]


@functools.partial(jax.jit, static_argnums=0, static_argnames=('crop', 'propose'))
def propose_crops(
  config: ovseg.OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  size: Int[Array, '2'],
  *,
  crop: bool,
  propose: Propose = ovseg.propose,
) -> tuple[ovseg.Proposed, Float[Array, 'q h w'], tuple[Regions, ...]]:
  """Runs the proposer, and cuts the crops, which are empty unless asked for."""
  proposed = propose(config, params, image, size)
  masks = ovseg.full_masks(proposed.mask_logits, image.shape[:2], size)
  return proposed, masks, clip_mix.cut_regions(config, image, masks, cut=crop)


@functools.partial(jax.jit, static_argnums=0)
def embed_crops(
  config: ovseg.OvSegConfig,
  params: Params,
  regions: tuple[tuple[Regions, ...], ...],
) -> list[Float[Array, 'q e']]:
  """Embeds the crops of several pictures together."""
  every = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *regions)
  rows = clip_mix.embed_all(config, params, every)
  return list(rows.reshape(len(regions), -1, rows.shape[1]))


@functools.partial(jax.jit, static_argnums=0)
def _embed_some(
  config: ovseg.OvSegConfig,
  params: Params,
  regions: tuple[Regions, ...],
  wanted: Bool[Array, 'q'],
  rows: Float[Array, 'q e'],
) -> Float[Array, 'q e']:
  """Replaces the rows that are wanted."""
  embed = functools.partial(clip_mix.embed_places, config, params, regions)
  return map_valid(embed, wanted, rows, chunk=ovseg.chunk_size(config))


_full_masks = functools.partial(jax.jit, static_argnums=1)(ovseg.full_masks)
