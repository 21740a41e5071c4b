"""What the command needs to know of one family of foreign checkpoints."""

import abc
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from ovs_jax.convert.rules import Rule, export_each, foreign_names
from ovs_jax.convert.tensors import Source, Tensors
from ovs_jax.core.errors import UserError
from ovs_jax.models.backbones import Config
from ovs_jax.models.clip_config import ClipConfig
from ovs_jax.models.swin import relative_index
from ovs_jax.ops.losses import NO_OBJECT_WEIGHT

Settings = Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Options:
  """What files do not say, or what a user wants otherwise; None leaves it as it is.

  Attributes:
    activation: of CLIP, a name in `models.layers.ACTIVATIONS`.
    image_size: side of the input in pixels; position tables are resized to it.
    vision_heads: attention heads of the vision tower.
    text_heads: attention heads of the text tower.
    clip: directory of our CLIP that belongs to a file without one.
    antialias: whether position tables are resized as open_clip and timm do it.
  """

  activation: str | None = None
  image_size: int | None = None
  vision_heads: int | None = None
  text_heads: int | None = None
  clip: str | None = None
  antialias: bool | None = None

  @property
  def wishes(self) -> dict[str, Any]:
    """Returns those that are not None."""
    return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

  @property
  def sizes(self) -> dict[str, Any]:
    """Returns those that are fields of a CLIP's configuration."""
    return {k: v for k, v in self.wishes.items() if k not in ('clip', 'antialias')}

  def resizing(self, config: ClipConfig) -> ClipConfig:
    """Returns a CLIP's configuration that resizes positions as it is wished."""
    if self.antialias is None:
      return config
    tower = dataclasses.replace(config.image_tower, antialias=self.antialias)
    return dataclasses.replace(config, image_tower=tower)

  def refuse(self, what: str) -> None:
    """Raises ValueError if there are wishes, none of which `what` knows."""
    if self.wishes:
      raise UserError(
        f'--{", --".join(self.wishes)} belong to CLIP; this is {what}, which has no '
        'such thing'
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
class Family(abc.ABC):
  """One line of `SOURCES`; subclasses fill in what is not here.

  Models are told by their configuration, as `core.checkpoint.save_model` stores it.

  Attributes:
    model: the kind of model that it becomes, `config['model']`.
    name: in `SOURCES`. Those on Hugging Face are folders, with settings.
    clue: what tells its files from those of other families, for people.
  """

  model: ClassVar[str]
  name: str
  clue: str

  @abc.abstractmethod
  def recognise(self, source: Source, settings: Settings) -> bool:
    """Whether tensors are of this family, by their names, shapes and types only."""

  @abc.abstractmethod
  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Converts tensors with the settings that came along; raises ValueError."""

  @abc.abstractmethod
  def rules(self, model: Mapping[str, Any]) -> list[Rule]:
    """Returns the table of a model; raises ValueError if the layout cannot hold it."""

  @abc.abstractmethod
  def shapes(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the tree of the parameters that a file of the layout holds."""

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Returns the value of one of `Conversion.constants`; a family may have none."""
    raise KeyError(name)

  def settings(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the files that belong to the tensors, as JSON by file name."""
    return {}

  def notes(self, model: Mapping[str, Any]) -> list[str]:
    """Returns what the reader of an export has to be told."""
    return []

  @property
  def folder(self) -> bool:
    """Whether an export is a folder."""
    return self.name.startswith('hf_')

  def names(self, model: Mapping[str, Any]) -> list[str]:
    """Returns the names of a model's tensors in this layout, or raises ValueError."""
    return foreign_names(self.rules(model), self.shapes(model))

  def export(
    self, params: Mapping[str, Any], model: Mapping[str, Any], names: Iterable[str]
  ) -> dict[str, np.ndarray]:
    """Returns the foreign tensors of these names, or raises ValueError."""
    return dict(self.export_each(params, model, names))

  def export_each(
    self, params: Mapping[str, Any], model: Mapping[str, Any], names: Iterable[str]
  ) -> Iterator[tuple[str, np.ndarray]]:
    """Gives them one by one, with their names."""
    return export_each(params, self.rules(model), names)


def buffer(name: str, backbone: Config, classes: int = 0) -> np.ndarray:
  """Returns the value of a tensor that follows from the sizes of a model.

  Args:
    name: of the class weights of a loss, of an index of relative positions, or of a
      counter of batches, which starts anew.
    backbone: its sizes.
    classes: how many the loss has.
  """
  if name.endswith('empty_weight'):
    weights = np.ones(classes + 1, np.float32)
    weights[-1] = NO_OBJECT_WEIGHT
    return weights
  if name.endswith('relative_position_index'):
    return relative_index(backbone.window).astype(np.int64)
  return np.zeros((), np.int64)
