"""What a run says while it works: a progress bar, JSONL metrics, TensorBoard."""

import importlib.util
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from ovs_jax.core.files import write_text

T = TypeVar('T')


def progress(
  items: Iterable[T], *, total: int | None, title: str, unit: str = 'it', start: int = 0
) -> Iterator[T]:
  """Iterates with a bar that shows the rate and the time left.

  Without a terminal it prints a line every 20 seconds.
  """
  return iter(_bar(total=total, title=title, unit=unit, start=start, items=items))


def _bar(*, total: int | None, title: str, unit: str, start: int, items: Any) -> tqdm:
  terminal = sys.stderr.isatty()
  return tqdm(
    items,
    total=total,
    initial=start,
    desc=title,
    unit=unit,
    dynamic_ncols=terminal,
    mininterval=0.2 if terminal else 20,
    ascii=not terminal,
  )


class RunLog:
  """Metrics of one training run."""

  def __init__(
    self, workdir: pathlib.Path, *, title: str, start: int, steps: int, batch_size: int
  ) -> None:
    """Opens the log at step `start`; later lines of a killed run are dropped."""
    self._path = workdir / 'metrics.jsonl'
    self._batch_size = batch_size
    self._began, self._first = time.time(), start
    self._keep_until(start)
    self._file = self._path.open('a', encoding='utf-8')
    self._bar = _bar(total=steps, title=title, unit='step', start=start, items=None)
    self._board = _tensorboard(workdir)

  def _keep_until(self, step: int) -> None:
    if not self._path.exists():
      return
    lines = self._path.read_text(encoding='utf-8').splitlines()
    kept = []
    for line in lines:
      try:
        if json.loads(line)['step'] <= step:
          kept.append(line)
      except (json.JSONDecodeError, KeyError):
        break  # the line that the kill cut off
    write_text(self._path, ''.join(f'{line}\n' for line in kept))

  def advance(self, step: int) -> None:
    """Moves the bar to `step`, the number of finished steps."""
    self._bar.update(step - self._bar.n)

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Records the metrics of the step that was just finished.

    Raises:
      FloatingPointError: the loss is not finite; names the step.
    """
    rate = (
      self._batch_size * (step - self._first) / max(time.time() - self._began, 1e-9)
    )
    line = {'step': step, **{k: round(float(v), 6) for k, v in metrics.items()}}
    self._file.write(json.dumps({**line, 'images_per_second': round(rate, 1)}) + '\n')
    self._file.flush()
    if self._board is not None:
      self._board(step, metrics)
    self._bar.set_postfix_str(f'loss {metrics["loss"]:.4f}, {rate:.0f} images/s')
    if not math.isfinite(metrics['loss']):
      self.close()
      raise FloatingPointError(
        f'the loss is {metrics["loss"]} at step {step}; the last checkpoint before it '
        'is intact. Lower config.optimizer.learning_rate or set '
        'config.optimizer.gradient_clip, and run again'
      )

  def close(self) -> None:
    """Ends the bar and the files."""
    self._bar.close()
    self._file.close()


def _tensorboard(workdir: pathlib.Path) -> Any:
  """Returns a function that writes scalars, or None without TensorBoard."""
  if importlib.util.find_spec('tensorboard') is None:
    return None
  from tensorboard.compat.proto.event_pb2 import Event
  from tensorboard.compat.proto.summary_pb2 import Summary
  from tensorboard.summary.writer.event_file_writer import EventFileWriter

  writer = EventFileWriter(str(workdir / 'tensorboard'))

  def write(step: int, metrics: dict[str, float]) -> None:
    values = [Summary.Value(tag=k, simple_value=float(v)) for k, v in metrics.items()]
    event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
    writer.add_event(event)
    writer.flush()

  return write
