"""What the loop asks of a recipe, and what one does that does not say otherwise."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ovs_jax.core.types import Array, Batch, Constants, Int, Metrics, Params
from ovs_jax.data import load_dataset
from ovs_jax.data.shards import Shards
from ovs_jax.settings import Settings


def described(kind: str, **parts: Any) -> dict[str, Any]:
  """Returns what is stored beside the parameters of a model of this kind.

  The type that a training computes in is no part of the model: parameters are float32,
  and inference is, too, unless something else is asked for there.
  """

  def plain(part: Any) -> Any:
    if not isinstance(part, Mapping):
      return part
    return {k: 'float32' if k == 'dtype' else plain(v) for k, v in part.items()}

  return {'model': kind, **{name: plain(part) for name, part in parts.items()}}


class Recipe:
  """A model, its data and its loss.

  A recipe holds settings alone, and no arrays: what is loaded, drawn or computed comes
  out of `prepare`, and those who need it get it as an argument.

  Attributes:
    config: the whole configuration.
    model_config: stored beside the parameters; from it `models.stored` makes the model
      again.
    evaluate_every: steps between evaluations, of which the best step is kept; 0: never.
    all_rows: from rows of a batch to those of all devices, where a framework splits it;
      None: the loss does not ask, and needs the whole batch.
  """

  config: Settings
  model_config: dict[str, Any]
  evaluate_every: int = 0
  all_rows: Callable[[Array], Array] | None = None

  def prepare(self, key: Array) -> tuple[Params, Constants]:
    """Returns all parameters, drawn or loaded, and what `loss` reads beside them.

    The constants are arrays that no parameter shares. They lie whole on every device.
    """
    raise NotImplementedError

  def batches(
    self, start: int, rows: Int[np.ndarray, 'r'] | None = None
  ) -> Iterator[Batch]:
    """Yields the batches from step `start` on.

    With `rows`, which are in order, only these rows of each; see
    `core.sharding.own_rows`.
    """
    raise NotImplementedError

  def examples(self) -> int:
    """Returns how many examples an epoch shows."""
    _, builder = load_dataset(self.config.dataset)
    return len(Shards([builder], self.config.train.split))

  def loss(
    self, params: Params, constants: Constants, batch: Batch, key: Array
  ) -> tuple[Array, Metrics]:
    """Returns the loss and what to log beside it."""
    raise NotImplementedError

  def project(self, params: Params) -> Params:
    """Brings parameters back into their bounds after a step; here they have none."""
    return params

  def stored(self, params: Params) -> Params:
    """Returns the part of the parameters that checkpoints hold; here all of them."""
    return params

  def evaluate(self, params: Params, constants: Constants) -> dict[str, float]:
    """Returns scores; the step is the best whose first one is the highest."""
    raise NotImplementedError
