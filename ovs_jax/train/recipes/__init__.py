"""What can be trained. A recipe is a model, its data and its loss."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ovs_jax.core.types import Array, Batch, Int, Metrics, Params
from ovs_jax.train.recipes.clip_pretrain import ClipPretrain
from ovs_jax.train.recipes.clip_regions import ClipRegions
from ovs_jax.train.recipes.clipseg import ClipSegTraining
from ovs_jax.train.recipes.coseg import CoSegTraining
from ovs_jax.train.recipes.proposer import Proposer


@runtime_checkable
class Recipe(Protocol):
  """What the loop asks of a recipe.

  One with `evaluate(params) -> scores` is evaluated during training, if
  `config.adapt.evaluate_every` says so, and its best step is kept; see `train.keeping`.
  """

  # Stored beside the parameters; from it `models.build` makes the model again.
  model_config: dict[str, Any]

  def init(self, key: Array) -> Params:
    """Returns all parameters, drawn or loaded."""

  def batches(
    self, start: int, rows: Int[np.ndarray, 'r'] | None = None
  ) -> Iterator[Batch]:
    """Yields the batches from step `start` on.

    With `rows`, which are in order, only these rows of each; see
    `core.sharding.own_rows`.
    """

  def loss(self, params: Params, batch: Batch, key: Array) -> tuple[Array, Metrics]:
    """Returns the loss and what to log beside it."""

  def project(self, params: Params) -> Params:
    """Brings parameters back into their bounds after a step."""


RECIPES: dict[str, Callable[[Any], Recipe]] = {
  'clip_pretrain': ClipPretrain,
  'clip_regions': ClipRegions,
  'clipseg': ClipSegTraining,
  'coseg': CoSegTraining,
  'proposer': Proposer,
}
