"""What a process has counted of an evaluation, in a file that the next start finds."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from zipfile import BadZipFile

import jax
import numpy as np

from ovs_jax.core import hosts
from ovs_jax.core.checkpoint import identity
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, Place, atomic_path
from ovs_jax.core.preemption import apart, asked, pause
from ovs_jax.core.runlog import progress
from ovs_jax.core.workers import Workers
from ovs_jax.evaluate.tally import Arrays, Tally, gather, pack, unpack

T, R = TypeVar('T'), TypeVar('R')
_OWN = ('counted_steps', 'counted_notes', 'counted_of')  # beside the sums in a file


class Counted:
  """The sums of this process, integers in which the order of images leaves no trace.

  Attributes:
    directory: of the evaluation.
    index: of this process.
    count: of processes.
    tallies: by name; whoever counts fills them.
    sums: likewise.
    steps: that are in the sums.
    notes: lists of what was found on the way, by kind.
  """

  def __init__(
    self,
    directory: Place,
    *,
    models: Sequence[Path] = (),
    index: int | None = None,
    count: int | None = None,
  ) -> None:
    """Reads what an earlier start left, if it had as many processes.

    Args:
      directory: of the evaluation, which all processes see.
      models: directories of the checkpoints that are evaluated; '' is none.
      index: of this process; None asks JAX.
      count: of processes; None asks JAX.

    Raises:
      ValueError: the file is damaged, or of models that have been written anew.
    """
    self.index = jax.process_index() if index is None else index
    self.count = jax.process_count() if count is None else count
    self.directory = directory
    self._path = directory / f'counted_{self.index}_of_{self.count}.npz'
    self.tallies: dict[str, Tally] = {}
    self.sums: Arrays = {}
    self.steps = 0
    self.notes: dict[str, list[str]] = {}
    self._of = json.dumps([identity(model) for model in models if model])
    of = self._of
    if self._path.is_file():
      try:
        self.tallies, self.sums = unpack([self._path.read_bytes()])
        steps, notes, of = (self.sums.pop(name) for name in _OWN)
        self.steps, self.notes = int(steps), json.loads(str(notes))
      except (OSError, LookupError, EOFError, ValueError, BadZipFile) as error:
        raise UserError(
          f'{self._path} is damaged ({error}); delete it to count these images again'
        ) from error
    if str(of) != self._of:
      raise UserError(
        f'{self._path} counts images under {of}, now the checkpoints are {self._of}; '
        'delete it to count all images anew, or give another --workdir='
      )

  def fill(
    self, tallies: dict[str, Tally], sums: Arrays, notes: dict[str, list[str]]
  ) -> None:
    """Puts what was counted into these, which become its own."""
    tallies.update(self.tallies)
    sums.update(self.sums)
    notes.update(self.notes)
    self.tallies, self.sums, self.notes = tallies, sums, notes

  def run(
    self,
    work: Callable[[int, T], R],
    items: Iterable[T],
    add: Callable[[R], Any],
    *,
    total: int,
    every: int,
    workers: Workers,
    title: str,
  ) -> None:
    """Works off the steps that are left, and keeps the sums now and then.

    Args:
      work: what the workers do with an item; may fill `tallies` itself.
      items: of the steps that are left.
      add: does the rest with a result, one after the other.
      total: steps of this process in all.
      every: steps after which the sums are kept.
      workers: that share the items.
      title: of the progress bar.

    Raises:
      Stopped: in all processes if one was asked to, when all sums are kept.
    """
    with apart(f'counting for {title}'):
      found = self._results(work, iter(items), total, every, workers)
      bar = progress(found, total=total, title=title, unit='step', start=self.steps)
      for result in bar:
        add(result)

  def _results(
    self,
    work: Callable[[int, T], R],
    items: Iterator[T],
    total: int,
    every: int,
    workers: Workers,
  ) -> Iterator[R]:
    for begun in range(self.steps, total, every):
      some = itertools.islice(items, min(every, total - begun))
      some = itertools.takewhile(lambda _: not asked(), some)
      for result in workers.map(work, some):
        yield result
        self.steps += 1
      # Nothing is under way now: the sums are those of the first steps, no others.
      if asked() or self.steps < total or self.count > 1:
        self._keep()
      pause(f'{self.steps} of {total} steps are counted')

  def _keep(self) -> None:
    texts = (json.dumps(self.notes), self._of)
    own = (np.array(self.steps), *map(np.array, texts))
    sums = {**self.sums, **dict(zip(_OWN, own, strict=True))}
    with atomic_path(self._path) as temporary:
      temporary.write_bytes(pack(self.tallies, sums))

  def merged(self) -> tuple[dict[str, Tally], Arrays]:
    """Returns the sums of all processes, on each of them."""
    return unpack(gather(pack(self.tallies, self.sums)))

  def clear(self) -> None:
    """Removes the files, once all that follows from them is written."""
    hosts.barrier(f'the evaluation in {self.directory.name} is written')
    if self.index == 0:
      for path in self.directory.glob('counted_*_of_*.npz'):
        path.unlink()
