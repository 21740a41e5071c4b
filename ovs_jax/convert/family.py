"""What the command needs to know of one family of foreign checkpoints."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import reader

Tensors = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Options:
  """What files do not say, or what a user wants otherwise; None leaves it as it is.

  Attributes:
    activation: of CLIP, a name in `models.layers.ACTIVATIONS`.
    image_size: side of the input in pixels; position tables are resized to it.
    vision_heads: attention heads of the vision tower.
    text_heads: attention heads of the text tower.
    clip: directory of our CLIP that belongs to a file without one.
  """

  activation: str | None = None
  image_size: int | None = None
  vision_heads: int | None = None
  text_heads: int | None = None
  clip: str | None = None


def refuse_options(options: Options, *, what: str) -> None:
  """Raises ValueError if there are wishes, none of which `what` knows."""
  wishes = [k for k, v in dataclasses.asdict(options).items() if v is not None]
  if wishes:
    raise ValueError(
      f'--{", --".join(wishes)} belong to CLIP; this is {what}, which has no such thing'
    )


@dataclasses.dataclass(frozen=True)
class Conversion:
  """A converted checkpoint.

  Attributes:
    model: configuration of the model, as `core.checkpoint.save_model` stores it.
    params: its parameters.
    tensors: the foreign tensors that the parameters hold, by their names in the
      family's layout; what exporting has to give back.
    constants: foreign tensors that hold no parameter, by name.
    left_out: parts of the file that belong to other models.
  """

  model: dict[str, Any]
  params: dict[str, Any]
  tensors: Tensors
  constants: tuple[str, ...] = ()
  left_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Family:
  """One line of `SOURCES`.

  Attributes:
    clue: what tells its files from those of other families, for people.
    model: the kind of model that it becomes, `config['model']`.
    recognise: whether tensors (and the settings that came with them) are of this
      family; should look at names, shapes and types only.
    convert: from tensors, settings and options to a `Conversion`; raises ValueError.
    names: from a model configuration to the names of the foreign tensors.
    export: from parameters, model configuration and names to the foreign tensors of
      those names; raises ValueError if the layout cannot hold the model.
    constant: from the name of a constant and a model configuration to its value.
    settings: from a model configuration to the files that belong to the tensors, as
      JSON by file name; None if the tensors are a file of their own.
    notes: from a model configuration to what the reader of an export has to be told.
  """

  clue: str
  model: str
  recognise: Callable[[Tensors, Mapping[str, Any] | None], bool]
  convert: Callable[[Tensors, Mapping[str, Any] | None, Options], Conversion]
  names: Callable[[Mapping[str, Any]], list[str]]
  export: Callable[
    [Mapping[str, Any], Mapping[str, Any], list[str]], dict[str, np.ndarray]
  ]
  constant: Callable[[str, Mapping[str, Any]], np.ndarray]
  settings: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
  notes: Callable[[Mapping[str, Any]], list[str]] = lambda model: []


class Renamed(Mapping[str, np.ndarray]):
  """Tensors under other names; none is read before it is asked for.

  Attributes:
    tensors: by their old names.
    names: from new names to old ones.
  """

  def __init__(self, tensors: Tensors, names: Mapping[str, str]) -> None:
    """Gives each of `names` the tensor that its value names."""
    self.tensors, self.names = tensors, dict(names)

  def __getitem__(self, name: str) -> np.ndarray:
    """Reads the tensor of a new name."""
    return self.tensors[self.names[name]]

  def __iter__(self) -> Iterator[str]:
    """The new names."""
    return iter(self.names)

  def __len__(self) -> int:
    """The number of new names."""
    return len(self.names)

  def __contains__(self, name: object) -> bool:
    return name in self.names


def kind_of(tensors: Tensors, name: str) -> tuple[tuple[int, ...], np.dtype]:
  """Returns shape and type of a tensor, as in its file, without reading it if it can.

  The type may be smaller than that of the values, which a reader may widen.
  """
  while isinstance(tensors, Renamed | collections.ChainMap):
    if isinstance(tensors, Renamed):
      tensors, name = tensors.tensors, tensors.names[name]
    else:
      tensors = next(part for part in tensors.maps if name in part)
  if isinstance(tensors, reader.Tensors):
    entry = tensors.entry(name)
    return tuple(entry.shape), np.dtype(entry.dtype)
  return tensors[name].shape, tensors[name].dtype


def shape_of(tensors: Tensors, name: str) -> tuple[int, ...]:
  """Returns the shape of a tensor."""
  return kind_of(tensors, name)[0]
