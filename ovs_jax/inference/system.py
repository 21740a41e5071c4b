"""What all models have in common: a picture and names in, labels out.

A system encodes a picture once, and is asked for names as often as one likes. CLIPSeg
and CoSeg give binary masks, each with one of the names as its label, of which
`ops.merging` makes one label map; OVSeg weighs names for every proposal.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Bool, Float, Int, UInt8
from ovs_jax.inference.result import Segmentation
from ovs_jax.text.classes import NOTHING, Classes


@dataclasses.dataclass(frozen=True)
class Texts:
  """Embedded names: a row per name, or per word where the best word counts.

  Attributes:
    count: of the names.
    owner: the name that each row belongs to, ascending.
    conditions: what CLIPSeg's decoder takes, not normalised; None for CoSeg.
    anchors: what labels are chosen by, L2-normalised; None where none are chosen. Those
      of CoSeg have a last row without owner, the text of "unlabeled".
  """

  count: int
  owner: Int[np.ndarray, 't']
  conditions: Float[np.ndarray, 't d'] | None
  anchors: Float[np.ndarray, 'a e'] | None

  @property
  def rows(self) -> Float[np.ndarray, 't _']:
    """What the model is asked with, a row for each of `owner`."""
    if self.conditions is not None:
      return self.conditions
    return self.anchors[: len(self.owner)]


@dataclasses.dataclass(frozen=True)
class MaskChunk:
  """Some of a picture's masks.

  Attributes:
    logits: of the masks, at the network's resolution.
    labels: of the masks, `NO_LABEL` for none.
    cosines: of the masks' tokens with the names and with "unlabeled", which comes last;
      None where a mask is asked for by its name.
  """

  logits: Float[Any, 'n y x']
  labels: Int[np.ndarray, 'n']
  cosines: Float[np.ndarray, 'n c'] | None


@runtime_checkable
class System(Protocol):
  """A model that segments. `Segmenter` is its interface for users."""

  kind: str  # of its checkpoint
  rules: tuple[str, ...]  # how masks become labels, the default first
  abilities: tuple[str, ...]  # what else `Segmenter` can do with it

  def embed(
    self, classes: Classes, *, templates: Any = None, synonyms: str = 'mean'
  ) -> Texts:
    """Embeds names.

    Args:
      classes: names and the words that stand for them.
      templates: sentences around words; None takes the system's own.
      synonyms: 'mean' of a name's words, 'max' (the best word counts), or 'paper' (one
        string with commas).
    """

  def encode(self, image: UInt8[np.ndarray, 'h w 3']) -> Any:
    """Runs what does not depend on the names."""

  def encode_all(
    self,
    images: Sequence[UInt8[np.ndarray, '_ _ 3']],
    *,
    window: int | None = None,
    overlap: float = 0.25,
  ) -> list[Any]:
    """Encodes pictures of any sizes, larger ones than `window` in parts."""

  def segment(
    self, encoded: Any, classes: Classes, background: Classes = NOTHING, **options: Any
  ) -> Segmentation:
    """Labels a picture; which options there are depends on the model."""

  def exact(self) -> 'System':
    """Returns the same model, as exact as it can be."""


@runtime_checkable
class MaskSystem(System, Protocol):
  """A model that segments by labelled masks."""

  def on(self, device: Any) -> 'MaskSystem':
    """Returns the system with its parameters on a device, where it then works."""

  def candidates(
    self, encoded: Any, texts: Texts, allowed: Bool[np.ndarray, 'k'] | None = None
  ) -> Int[np.ndarray, 'n']:
    """Returns the names that masks will have, best first."""

  def cosines(self, encoded: Any, texts: Texts) -> Float[np.ndarray, 'k'] | None:
    """Returns those of the picture with all names; None if it chooses by no such."""

  def masks(
    self, encoded: Any, texts: Texts, allowed: Bool[np.ndarray, 'k'] | None = None
  ) -> Iterator[MaskChunk]:
    """Yields all masks; `allowed` names alone may be labels, None is all of them."""


def options_of(function: Callable[..., Any]) -> tuple[str, ...]:
  """Returns the names of a function's keyword arguments."""
  parameters = inspect.signature(function).parameters.values()
  return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def check_options(kind: str, known: Sequence[str], given: Mapping[str, Any]) -> None:
  """Refuses options that a model does not take.

  Args:
    kind: of the model, `config['model']`.
    known: the options that it takes.
    given: options, spelt as the user did.

  Raises:
    ValueError: it names all that are not known.
  """
  if wrong := [option for option in given if option not in known]:
    raise UserError(
      f'{", ".join(wrong)}: not for a {kind!r} checkpoint; leave '
      f'{"it" if len(wrong) == 1 else "them"} out'
    )


def network_size(
  size: tuple[int, int], side: int, patch: int, *, keep_aspect: bool
) -> tuple[int, int]:
  """Returns the height and width that a picture is resized to.

  Args:
    size: of the picture.
    side: that the network was trained with.
    patch: of which both sides are multiples.
    keep_aspect: whether the shorter side becomes `side` and the longer one follows, at
      most four times as long; else both become `side`, as in training.

  Raises:
    ValueError: the picture is smaller than a patch.
  """
  if min(size) < patch:
    raise UserError(
      f'the image has {size[0]}x{size[1]} pixels, less than a patch of '
      f'{patch}x{patch}; give a larger picture'
    )
  if not keep_aspect:
    return side, side
  scale = side / min(size)
  h, w = (min(round(s * scale / patch), 4 * side // patch) * patch for s in size)
  return h, w


def best_per_owner(
  rows: Float[np.ndarray, 'n t'], owner: Int[np.ndarray, 't'], count: int
) -> Float[np.ndarray, 'n k']:
  """Returns for each name the largest value of its rows."""
  best = np.full((rows.shape[0], count), -np.inf, rows.dtype)
  np.maximum.at(best, (slice(None), owner), rows)
  return best


def centre_square(image: Any) -> Any:
  """Cuts the central square out of an array (h, w, ...)."""
  h, w = image.shape[:2]
  side = min(h, w)
  top, left = (h - side) // 2, (w - side) // 2
  return image[top : top + side, left : left + side]


def resize_cubic(
  image: UInt8[np.ndarray, 'h w 3'], side: int
) -> UInt8[np.ndarray, 's s 3']:
  """Resizes a square with Pillow's antialiased bicubic filter."""
  if image.shape[:2] == (side, side):
    return image
  resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
  return np.asarray(resized)
