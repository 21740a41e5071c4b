"""What a run says while it works: a progress bar, JSONL metrics, other writers."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
from tqdm.auto import tqdm

from ovs_jax.core.buckets import Mirror
from ovs_jax.core.devices import peak_memory
from ovs_jax.core.files import Place, local, strict_json, write_text
from ovs_jax.core.writers import Writer, open_writers

T = TypeVar('T')


def progress(
  items: Iterable[T], *, total: int | None, title: str, unit: str = 'it', start: int = 0
) -> Iterator[T]:
  """Iterates with a bar that shows the rate and the time left.

  Without a terminal or notebook it prints a line every 20 seconds.
  """
  return iter(_bar(total=total, title=title, unit=unit, start=start, items=items))


def _bar(
  *,
  total: int | None,
  title: str,
  unit: str,
  start: int,
  items: Any,
  disable: bool = False,
) -> tqdm:
  notebook = any(kind.__name__ == 'tqdm_notebook' for kind in tqdm.__mro__)
  terminal = sys.stderr.isatty() or notebook
  return tqdm(
    items,
    total=total,
    initial=start,
    desc=title,
    unit=unit,
    dynamic_ncols=terminal,
    mininterval=0.2 if terminal else 20,
    ascii=not terminal,
    disable=disable,
  )


class RunLog:
  """Metrics of one training run."""

  def __init__(
    self,
    workdir: Place,
    *,
    title: str,
    start: int,
    steps: int,
    batch_size: int,
    flops: float = 0.0,
    silent: bool = False,
    writers: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
  ) -> None:
    """Opens the log at step `start`; later lines of a killed run are dropped.

    Args:
      workdir: where metrics.jsonl and the files of other writers go; to an address they
        go with every line.
      title: of the bar.
      start: finished steps.
      steps: how many there will be.
      batch_size: images of a step.
      flops: of a step, as a share of what the devices can do in a second.
      silent: writes and shows nothing, for all processes but one.
      writers: names of others that get the metrics, of `core.writers.WRITERS`; none:
        TensorBoard, if it is installed.
      config: of the run, for writers that keep it.
    """
    self._mirror = None if silent else Mirror(workdir)
    folder = None if self._mirror is None else self._mirror.path
    self._path = folder / 'metrics.jsonl' if folder else local(os.devnull)
    self._batch_size = batch_size
    self._flops = flops
    self._began, self._first = time.time(), start
    if self._mirror is not None:
      self._mirror.fetch(self._path.name)
      self._keep_until(start)
    self._file = self._path.open('a', encoding='utf-8')
    self._bar = _bar(
      total=steps, title=title, unit='step', start=start, items=None, disable=silent
    )
    self._writers: list[Writer] = []
    if folder:
      self._mirror.fetch('wandb_id')
      self._writers = open_writers(writers, folder, title=title, config=config or {})
    self._line, self._line_step = self._began, start
    self._spent: dict[str, float] = {}

  def _keep_until(self, step: int) -> None:
    if not self._path.exists():
      return
    lines = self._path.read_text(encoding='utf-8', errors='replace').splitlines()
    kept = []
    for number, line in enumerate(lines, 1):
      try:
        if json.loads(line)['step'] <= step:
          kept.append(line)
      except (json.JSONDecodeError, KeyError, TypeError):
        if number < len(lines):  # the last one is what a kill cut off
          print(
            f'note: line {number} of {self._path} is damaged; left out', file=sys.stderr
          )
    write_text(self._path, ''.join(f'{line}\n' for line in kept))

  def advance(self, step: int) -> None:
    """Moves the bar to `step`, the number of finished steps."""
    self._bar.update(step - self._bar.n)

  @contextlib.contextmanager
  def timing(self, what: str) -> Iterator[None]:
    """Adds the time of its block to the share `<what>_share` of the next line."""
    began = time.time()
    try:
      yield
    finally:
      self._spent[what] = self._spent.get(what, 0.0) + time.time() - began

  def _times(self, step: int) -> dict[str, float]:
    """Where the time since the last line went; starts the next line's."""
    elapsed = max(time.time() - self._line, 1e-9)
    times = {f'{k}_share': round(v / elapsed, 4) for k, v in self._spent.items()}
    if self._flops:
      done = self._flops * (step - self._line_step)
      times['utilisation'] = round(done / elapsed, 6)
    self._line, self._line_step, self._spent = time.time(), step, {}
    return times

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Records the metrics of the step that was just finished."""
    rate = (
      self._batch_size * (step - self._first) / max(time.time() - self._began, 1e-9)
    )
    line = {'step': step, **{k: round(float(v), 6) for k, v in metrics.items()}}
    line['images_per_second'] = round(rate, 1)
    line['memory_bytes'] = max(peak_memory().values())
    self._file.write(strict_json({**line, **self._times(step)}) + '\n')
    self._file.flush()
    for writer in self._writers:
      writer.write(step, metrics)
    if self._mirror is not None:
      self._mirror.send()
    self._bar.set_postfix_str(f'loss {metrics["loss"]:.4f}, {rate:.0f} images/s')

  def close(self) -> None:
    """Ends the bar and the files."""
    self._bar.close()
    self._file.close()
    while self._writers:
      self._writers.pop().close()
    if self._mirror is not None:
      self._mirror.send()


class Trace:
  """Traces a few steps of a run; a context that ends the tracing."""

  def __init__(self, directory: Place, *, first: int, steps: int) -> None:
    """Plans to trace `steps` steps from step `first` on; 0 traces nothing."""
    self._mirror = Mirror(directory)
    self._first, self._end = first, first + steps
    self._running = False

  def __enter__(self) -> 'Trace':
    """Returns itself; tracing starts with `before`."""
    return self

  def __exit__(self, *error: object) -> None:
    """Ends the tracing, if any is going on."""
    self._stop()

  def before(self, step: int) -> None:
    """Starts or stops, as the coming step asks for."""
    if self._first <= step < self._end and not self._running:
      jax.profiler.start_trace(str(self._mirror.path), create_perfetto_trace=True)
      self._running = True
    elif step >= self._end:
      self._stop()

  def _stop(self) -> None:
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
      self._mirror.send()
