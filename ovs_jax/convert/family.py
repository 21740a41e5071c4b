"""What the command needs to know of one family of foreign checkpoints."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ovs_jax.convert.rules import Rule, export, foreign_names
from ovs_jax.convert.tensors import Source, Tensors


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
    rules: from a model configuration to the table of the layout; raises ValueError if
      that cannot hold the model.
    shapes: from a model configuration to the tree of what a file of the layout holds.
    constant: from the name of a constant and a model configuration to its value.
    settings: from a model configuration to the files that belong to the tensors, as
      JSON by file name; None if the tensors are a file of their own.
    notes: from a model configuration to what the reader of an export has to be told.
  """

  clue: str
  model: str
  recognise: Callable[[Source, Mapping[str, Any] | None], bool]
  convert: Callable[[Source, Mapping[str, Any] | None, Options], Conversion]
  rules: Callable[[Mapping[str, Any]], list[Rule]]
  shapes: Callable[[Mapping[str, Any]], Mapping[str, Any]]
  constant: Callable[[str, Mapping[str, Any]], np.ndarray]
  settings: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
  notes: Callable[[Mapping[str, Any]], list[str]] = lambda model: []

  def names(self, model: Mapping[str, Any]) -> list[str]:
    """Returns the names of a model's tensors in this layout, or raises ValueError."""
    return foreign_names(self.rules(model), self.shapes(model))

  def export(
    self, params: Mapping[str, Any], model: Mapping[str, Any], names: Iterable[str]
  ) -> dict[str, np.ndarray]:
    """Returns the foreign tensors of these names, or raises ValueError."""
    return export(params, self.rules(model), names)
