"""How an OVSeg came to its labels: its best proposals, and what decided at a pixel."""

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.types import Bool, Float, Int, UInt8
from ovs_jax.inference import encode
from ovs_jax.inference.label import label_picture
from ovs_jax.inference.ovseg import OvSegSystem, with_others
from ovs_jax.inference.system import System
from ovs_jax.inference.weigh import weigh
from ovs_jax.models import ovseg
from ovs_jax.ops.regions import Regions, patch_mask
from ovs_jax.ops.resize import linear_taps
from ovs_jax.text.classes import NOTHING, Classes


@dataclasses.dataclass(frozen=True)
class Proposal:
  """One mask, and what was made of it.

  Attributes:
    number: of the query.
    mask: probabilities at the network's resolution.
    crop: what the first CLIP sees of it, before mask prompts; None if no pixel is
      above the threshold of masks.
    prompted: patches of the crop that mask prompts replace; None without such prompts.
    proposer: probabilities of all names; what lacks to 1 is "no object".
    clip: the same by CLIP, or the mean of several, which sum to 1.
    weights: what both make of them (OVSeg, section 3.1).
    here: its mask at the pixel, 0..1.
  """

  number: int
  mask: Float[np.ndarray, 'h w']
  crop: UInt8[np.ndarray, 's s 3'] | None
  prompted: Bool[np.ndarray, 'p p'] | None
  proposer: Float[np.ndarray, 'k']
  clip: Float[np.ndarray, 'k']
  weights: Float[np.ndarray, 'k']
  here: float

  @property
  def evidence(self) -> Float[np.ndarray, 'k']:
    """What it adds to each name at the pixel."""
    return self.weights * np.float32(self.here)


@dataclasses.dataclass(frozen=True)
class Explanation:
  """What there is to see of one picture.

  Attributes:
    image: RGB, 0..255.
    names: those that get labels, then background.
    count: of those that get labels.
    labels: indices into `names` for every pixel.
    at: x and y of the pixel that is explained.
    evidence: of all names there; the largest wins.
    proposals: those that decided most there, the strongest first.
    method: how both classifiers were weighed, in words.
  """

  image: UInt8[np.ndarray, 'H W 3']
  names: tuple[str, ...]
  count: int
  labels: Int[np.ndarray, 'H W']
  at: tuple[int, int]
  evidence: Float[np.ndarray, 'k']
  proposals: tuple[Proposal, ...]
  method: str

  @property
  def winner(self) -> int:
    """Index of the name that has the pixel."""
    return int(np.argmax(self.evidence))

  def figure(self) -> Any:
    """Returns all of it as one figure of Matplotlib."""
    from ovs_jax.inference.explain_figure import draw

    return draw(self)

  def _repr_png_(self) -> bytes:
    file = io.BytesIO()
    self.figure().savefig(file, format='png')
    return file.getvalue()

  def __str__(self) -> str:
    """Says who decided what, in a few lines."""
    x, y = self.at
    order = np.argsort(-self.evidence, kind='stable')[:5]
    told = ', '.join(f'{self.names[k]} {self.evidence[k]:.3g}' for k in order)
    lines = [f'evidence at x={x}, y={y} ({self.method}): {told}']
    for p in self.proposals:
      best, by_clip = (int(np.argmax(row)) for row in (p.proposer, p.clip))
      lines.append(
        f'  proposal {p.number}: mask {p.here:.2f} there; proposer: '
        f'{self.names[best]} {p.proposer[best]:.2f}; CLIP: {self.names[by_clip]} '
        f'{p.clip[by_clip]:.2f}; adds {p.evidence[self.winner]:.3g} to '
        f'{self.names[self.winner]}'
      )
    return '\n'.join(lines)


def explain(
  system: System,
  image: UInt8[np.ndarray, 'H W 3'],
  classes: Classes,
  background: Classes = NOTHING,
  *,
  at: tuple[int, int] | None = None,
  proposals: int = 5,
  templates: str | Sequence[str] | None = None,
  synonyms: str = 'mean',
  classifier: str | None = None,
  weight: float | None = None,
) -> Explanation:
  """Looks at a picture as `segment` does in the mode 'exact', and keeps what it sees.

  Args:
    system: an OVSeg.
    image: RGB, 0..255.
    classes: the names.
    background: names that compete too.
    at: x and y of a pixel; None: the middle.
    proposals: how many are kept.
    templates: as in `Segmenter.segment`.
    synonyms: as in `Segmenter.segment`.
    classifier: as in `Segmenter.segment`.
    weight: as in `Segmenter.segment`.

  Raises:
    ValueError: a model without proposals, or a pixel outside of the picture.
  """
  x, y = _check(system, image.shape[:2], at, proposals)
  picture, regions = _encode(system, image)
  asked = with_others(classes + background)
  texts = system.embed(asked, templates=templates, synonyms=synonyms)
  classifier, weight = system.method(classifier, weight, 'pixels')
  method = {'classifier': classifier, 'weight': weight, 'mix': system.mix}
  method |= {'rule': 'pixels', 'choosing': len(asked)}
  weighed = weigh(picture.encoded, texts.rows, texts.owner, **method)
  labels, _, _ = label_picture(picture, weighed[0])
  evidence, found = _added(
    picture, [np.asarray(w)[:, : len(asked)] for w in weighed], (x, y), proposals
  )
  told = f'{classifier}, CLIP to {weight:g}' if classifier == 'ensemble' else classifier
  return Explanation(
    image=image,
    names=asked.names,
    count=len(classes),
    labels=labels.astype(np.int32),
    at=(x, y),
    evidence=evidence,
    proposals=tuple(
      dataclasses.replace(one, **_seen(system.config, regions, one.number))
      for one in found
    ),
    method=told,
  )


def _check(
  system: System, size: tuple[int, int], at: tuple[int, int] | None, proposals: int
) -> tuple[int, int]:
  """Returns the pixel, or refuses what was asked."""
  if not isinstance(system, OvSegSystem):
    raise UserError(
      f'a {system.kind!r} checkpoint has no proposals that could be explained; '
      "'ovseg' ones have"
    )
  if proposals < 1:
    raise UserError(f'{proposals} proposals; show at least 1')
  height, width = size
  x, y = (width // 2, height // 2) if at is None else at
  if not (0 <= x < width and 0 <= y < height):
    raise UserError(f'the pixel {x},{y} is outside of the picture, {width}x{height}')
  return x, y


def _added(
  picture: encode.EncodedImage,
  weighed: Sequence[Float[np.ndarray, 'q k']],
  at: tuple[int, int],
  count: int,
) -> tuple[Float[np.ndarray, 'k'], list[Proposal]]:
  """Returns the evidence at a pixel, and the proposals that add most to the best."""
  weights, proposer, clip = weighed
  if not bool(np.any(picture.encoded.valid)):  # then nothing is painted
    weights = np.zeros_like(weights)
  here = _masks_at(picture, *at)
  evidence = weights.T @ here
  order = np.argsort(-here * weights[:, np.argmax(evidence)], kind='stable')
  h, w = picture.network_size
  return evidence, [
    Proposal(
      number=q,
      mask=np.asarray(picture.encoded.masks[q][:h, :w]),
      crop=None,
      prompted=None,
      proposer=proposer[q],
      clip=clip[q],
      weights=weights[q],
      here=float(here[q]),
    )
    for q in order[:count].tolist()
  ]


def _encode(
  system: OvSegSystem, image: UInt8[np.ndarray, 'H W 3']
) -> tuple[encode.EncodedImage, Regions]:
  """Encodes a picture, and returns the crops of the first CLIP too."""
  config, settings = system.config, system.settings
  sides = {'shortest': settings.shortest, 'longest': settings.longest}
  small = resize_shortest(image, **sides)
  size = (int(small.shape[0]), int(small.shape[1]))
  padded = ovseg.pad_to_bucket(small)
  proposed, masks, cut = encode.propose_crops(
    config, system.params, padded, jnp.array(size), crop=True, propose=system.propose
  )
  (rows,) = encode.embed_crops(config, system.params, (cut,))
  encoded = ovseg.Encoded(
    embeddings=proposed.embeddings,
    regions=rows,
    masks=masks,
    boxes=cut[0].boxes,
    valid=cut[0].valid,
    no_object=proposed.no_object,
  )
  return encode.EncodedImage(image.shape[:2], size, encoded), cut[0]


def _masks_at(picture: encode.EncodedImage, x: int, y: int) -> Float[np.ndarray, 'q']:
  """Returns all masks at a pixel, resized as for the label map."""
  taps = []
  for axis, place in ((0, y), (1, x)):
    low, high, weight = linear_taps(picture.network_size[axis], picture.size[axis])
    taps.append(((low[place], 1 - weight[place]), (high[place], weight[place])))
  found = np.zeros(picture.encoded.masks.shape[0], np.float32)
  for row, above in taps[0]:
    for column, beside in taps[1]:
      found += np.asarray(picture.encoded.masks[:, row, column]) * above * beside
  return found


def _seen(config: ovseg.OvSegConfig, regions: Regions, q: int) -> dict[str, Any]:
  """Returns a crop as it is seen, and which of its patches are replaced."""
  if not bool(regions.valid[q]):
    return {'crop': None, 'prompted': None}
  pixels = np.asarray(regions.pixels[q])
  own = config.clip.pixels
  mean, std = (np.array([[row]], np.float32) for row in (own.mean, own.std))
  crop = np.round(255 * (pixels * std + mean)).clip(0, 255).astype(np.uint8)
  if not config.clip.prompt_depth:
    return {'crop': crop, 'prompted': None}
  kept = np.asarray(patch_mask(regions.masks[q], config.clip.patch))
  side = config.clip.image_size // config.clip.patch
  return {'crop': crop, 'prompted': ~kept.reshape(side, side)}
