"""The checkpoints of one training run, under the numbers of its steps."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from ovs_jax.core import attached
from ovs_jax.core.checkpoint import beside, broken, check_bytes, sealed, stamp
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, Place, absolute, place

_TREES = ('params', 'train', 'raw')


def _items(params: Any, config: Mapping[str, Any], **more: Any) -> ocp.args.Composite:
  return ocp.args.Composite(
    params=ocp.args.StandardSave(params),
    config=ocp.args.JsonSave(dict(config)),
    **more,
  )


class RunCheckpoints:
  """The checkpoints of one training run, under `directory/<step>`."""

  def __init__(self, directory: Path, *, keep: int, config: Mapping[str, Any]) -> None:
    """Opens (or makes) the directory; `config` is stored with every step."""
    self._config = config
    folder = absolute(place(directory, schemes=('gs',)))
    self._manager = ocp.CheckpointManager(
      folder,
      item_handlers={
        **{name: sealed(ocp.StandardCheckpointHandler()) for name in _TREES},
        'config': sealed(ocp.JsonCheckpointHandler()),
      },
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=True,
        # On a CPU the arrays are not copied first, and the next step reuses them.
        enable_async_checkpointing=jax.default_backend() != 'cpu',
      ),
    )
    if jax.process_index() == 0:
      attached.write(folder, config)

  def latest(self) -> int | None:
    """Returns the newest complete step, or None."""
    return self._manager.latest_step()

  def path(self, step: int) -> Place:
    """Returns where a step is."""
    return self._manager.directory / str(step)

  def save(
    self,
    step: int,
    params: Any,
    optimizer: Any,
    *,
    raw: Any = None,
    notes: Mapping[str, Any] | None = None,
  ) -> None:
    """Starts writing a step; `close` waits for it.

    Args:
      step: its number.
      params: of the model, for whoever reads it.
      optimizer: its state.
      raw: what trains, where `params` are averages of it.
      notes: a few JSON-like values, which the method `notes` returns again.
    """
    more = {'train': ocp.args.StandardSave(optimizer)}
    if raw is not None:
      more['raw'] = ocp.args.StandardSave(raw)
    self._manager.save(
      step,
      args=_items(params, self._config, **more),
      custom_metadata={**(notes or {}), **stamp()},
    )

  def notes(self, step: int) -> dict[str, Any]:
    """Returns the notes that a step was saved with.

    Raises:
      ValueError: the step is of a newer format, or damaged.
    """
    return beside(self.path(step), 'checkpoint')

  def restore(
    self, step: int, params: Any, optimizer: Any, raw: Any = None
  ) -> tuple[Any, Any, Any]:
    """Reads a step into the structures, types and shardings of the arguments.

    Returns:
      `params`, `optimizer` and `raw`, which is None if it was saved without.

    Raises:
      ValueError: the step is of a newer format, damaged, or not of these structures.
    """
    self.notes(step)
    wanted = {'params': params, 'train': optimizer}
    if raw is not None and (self.path(step) / 'raw').is_dir():
      wanted['raw'] = raw
    self._check(step, wanted)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
    args = {name: ocp.args.StandardRestore(x) for name, x in abstract.items()}
    try:
      items = self._manager.restore(step, args=ocp.args.Composite(**args))
    except (OSError, KeyError, ValueError, TypeError) as error:
      raise broken(self.path(step), 'checkpoint', error) from error
    return items['params'], items['train'], items.get('raw')

  def _check(self, step: int, items: Iterable[str]) -> None:
    """Refuses a step of which bytes have changed; says which one is left."""
    try:
      check_bytes(self.path(step), 'checkpoint', items)
    except UserError as error:
      earlier = [s for s in self._manager.all_steps() if s < step]
      go_on = f'from step {max(earlier)}' if earlier else 'from the start'
      raise UserError(f'{error}. Delete it to go on {go_on}') from error

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()
