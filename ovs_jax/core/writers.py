"""Where a run's metrics go beside metrics.jsonl: TensorBoard, clu, Weights & Biases.

`config.train.writers` names them; none of their packages is needed by anything else.
"""

import dataclasses
import importlib.util
import pathlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import write_text
from ovs_jax.core.lookup import lookup

Scalars = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Writer:
  """What takes the metrics of a step.

  Attributes:
    write: takes the number of finished steps, and numbers by name.
    close: writes what is left.
  """

  write: Callable[[int, Scalars], None]
  close: Callable[[], None]


def check_writers(names: Sequence[str]) -> None:
  """Raises ValueError if a writer is unknown or its package is not installed."""
  for name in names:
    lookup(WRITERS, name, 'config.train.writers')
    if importlib.util.find_spec(name) is None:
      raise UserError(
        f'config.train.writers asks for {name!r}, which is not installed; pip install '
        f'{name}, or leave it out'
      )


def open_writers(
  names: Sequence[str],
  workdir: pathlib.Path,
  *,
  title: str,
  config: Mapping[str, Any],
) -> list[Writer]:
  """Opens the writers; the process that writes metrics.jsonl calls this alone.

  Args:
    names: of `WRITERS`; none: TensorBoard, if it is installed.
    workdir: of the run.
    title: of the run.
    config: its configuration, for writers that keep it.

  Raises:
    ValueError: a writer is unknown, or its package is not installed.
  """
  check_writers(names)
  if not names and importlib.util.find_spec('tensorboard') is not None:
    names = ('tensorboard',)
  return [WRITERS[name](workdir, title, config) for name in names]


def _tensorboard(
  workdir: pathlib.Path, title: str, config: Mapping[str, Any]
) -> Writer:
  """Event files in `<workdir>/tensorboard`."""
  del title, config
  from tensorboard.compat.proto.event_pb2 import Event
  from tensorboard.compat.proto.summary_pb2 import Summary
  from tensorboard.summary.writer.event_file_writer import EventFileWriter

  writer = EventFileWriter(str(workdir / 'tensorboard'))

  def write(step: int, metrics: Scalars) -> None:
    values = [Summary.Value(tag=k, simple_value=float(v)) for k, v in metrics.items()]
    event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
    writer.add_event(event)
    writer.flush()

  return Writer(write, writer.close)


def _clu(workdir: pathlib.Path, title: str, config: Mapping[str, Any]) -> Writer:
  """clu's default writer: absl's log, and TensorFlow's events in `<workdir>/clu`."""
  del title, config
  from clu import metric_writers

  writer = metric_writers.create_default_writer(str(workdir / 'clu'))

  def write(step: int, metrics: Scalars) -> None:
    writer.write_scalars(step, dict(metrics))
    writer.flush()

  return Writer(write, writer.close)


def _wandb(workdir: pathlib.Path, title: str, config: Mapping[str, Any]) -> Writer:
  """Weights & Biases; `<workdir>/wandb_id` lets a resumed run go on as the same one.

  Project, entity and mode are those of its environment variables. Steps that a killed
  run takes again are the same as before; W&B keeps the first.
  """
  import wandb

  path = workdir / 'wandb_id'
  if not path.exists():
    write_text(path, uuid.uuid4().hex[:12])
  run = wandb.init(
    id=path.read_text(encoding='utf-8'),
    resume='allow',
    name=title,
    config=dict(config),
    dir=str(workdir),
  )

  def write(step: int, metrics: Scalars) -> None:
    run.log(dict(metrics), step=step)

  return Writer(write, run.finish)


WRITERS: dict[str, Callable[[pathlib.Path, str, Mapping[str, Any]], Writer]] = {
  'tensorboard': _tensorboard,
  'clu': _clu,
  'wandb': _wandb,
}
