"""Building a TFDS data set from files: whole or not at all, one process at a time.

A build that was stopped or killed goes on with the files that it has not written yet
(`data.written`); so does one with problems, which leaves a list of them.
"""

import abc
import contextlib
import fcntl
import functools
import io
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tqdm.auto import tqdm

from ovs_jax.core import buckets
from ovs_jax.core.files import Place, below, local, place, remove, write_text
from ovs_jax.core.preemption import pause
from ovs_jax.data.seen import Seen
from ovs_jax.data.sources import Problem, SourceError
from ovs_jax.data.written import FOLDER, Task, Writer

PROBLEMS = 'problems.txt'
_LOCK = '.prepare.lock'
_LOCK_EVERY = 0.2  # seconds between looks whether another process is done
_INFO = 'dataset_info.json'  # TFDS writes it when all else is there
_SPACE = 1.1  # of the images' bytes; masks are small beside them


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """What `build` needs of a TFDS builder."""

  url_infos = {}  # nothing is downloaded: no checksum file to look for
  progress: tqdm | None = None  # advanced by one per example, if given
  seen: Seen | None = None  # is told of all labels

  @functools.cached_property
  def problems(self) -> list[Problem]:
    """What is wrong with the source, as far as it has been looked at."""
    return []

  @abc.abstractmethod
  def tasks(self, source: pathlib.Path) -> dict[str, Task]:
    """Returns what each split is made of, and notes what is missing as problems."""

  @abc.abstractmethod
  def identity(self) -> Any:
    """Returns what examples depend on, beside their files, as JSON."""

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    """What TFDS itself would write, without `build`."""
    tasks = self.tasks(local(dl_manager.manual_dir))
    return {split: self._generate_examples(task) for split, task in tasks.items()}

  def _generate_examples(self, task: Task) -> Iterator[tuple[str, dict[str, Any]]]:
    for pair in task.pairs:
      example, problems = task.read(pair)
      if example is None:
        raise SourceError(f'{self.name} cannot be built', problems)
      if task.keep(example):
        yield pair.image_id, task.encode(example)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Lets one process at a time build below `folder`; the lock dies with it.

  Raises:
    Stopped: SIGTERM came while another process was building.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / _LOCK, 'w') as file:
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        pause(f'another process is still building {folder}')
        time.sleep(_LOCK_EVERY)
    yield


def advance(
  builder: tfds.core.DatasetBuilder, then: str = 'and will be built anew'
) -> None:
  """Notes that one more example is read; between examples a build can be stopped.

  Raises:
    Stopped: SIGTERM came.
  """
  if builder.progress is not None:
    builder.progress.update()
  pause(f'{builder.name} was not finished, {then}')


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
  """Silences the bars and messages of TFDS, which would bury our one line."""
  tqdm_utils = tfds.core.utils.tqdm_utils
  before = tqdm_utils._active
  tqdm_utils.display_progress_bar(False)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tqdm_utils.display_progress_bar(before)


@contextlib.contextmanager
def same_records() -> Iterator[None]:
  """Lets TFDS write the same bytes for the same example, in every process.

  Else the fields of a record have any order, and data that were prepared again count as
  others than a run has begun with.
  """

  def serialize(self: ExampleSerializer, example: Any) -> bytes:
    return self.get_tf_example(example).SerializeToString(deterministic=True)

  before = ExampleSerializer.serialize_example
  ExampleSerializer.serialize_example = serialize
  try:
    yield
  finally:
    ExampleSerializer.serialize_example = before


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
  """Whether the data are there; TFDS renames a folder into place when it is done."""
  return (place(builder.data_dir) / _INFO).exists()


def build(builder: Builder, source: pathlib.Path) -> None:
  """Reads everything below `source` and writes it, or what is left to write.

  Raises:
    SourceError: with all problems; they are also in problems.txt beside the data.
    OSError: the disk is full or cannot be written.
    Stopped: SIGTERM came; the next call goes on.
  """
  target = local(builder.data_dir)
  target.parent.mkdir(parents=True, exist_ok=True)
  report = target.parent / PROBLEMS
  report.unlink(missing_ok=True)
  for stale in target.parent.glob(f'{tfds.core.constants.INCOMPLETE_PREFIX}*'):
    shutil.rmtree(stale)  # of a version that did not go on
  remove(target)
  tasks = builder.tasks(source)
  writer = Writer(
    builder.info,
    tasks,
    target.parent / FOLDER,
    identity=[str(builder.version), builder.identity()],
    seen=builder.seen,
  )
  _check_space(builder, tasks, writer.size)
  total = sum(len(task.pairs) for task in tasks.values())
  label = f'{builder.name}/{builder.builder_config.name}'
  bar = tqdm(total=total, initial=writer.done, desc=label, unit=' images')
  with bar as progress, quiet_tfds():
    builder.progress = progress
    then = 'and keeps what is written'
    builder.problems += writer.write(lambda: advance(builder, then))
  if builder.problems:
    writer.clear()
    failure = SourceError(f'{builder.name} cannot be built', builder.problems)
    write_text(report, failure.listing())
    failure.add_note(f'All of them are in {report}.')
    raise failure
  writer.finish(target)


def _check_space(builder: Builder, tasks: Mapping[str, Task], there: int) -> None:
  folder = local(builder.data_dir).parent
  images = (pair.image for task in tasks.values() for pair in task.pairs)
  size = sum(image.stat().st_size for image in images if image.is_file())
  free, needed = shutil.disk_usage(folder).free, _SPACE * size - there
  if free < needed:
    raise OSError(
      f'{folder} has {free / 1e9:.1f} GB free, building {builder.name} takes about '
      f'{needed / 1e9:.1f} GB; choose another --data_dir'
    )


@contextlib.contextmanager
def nearby(data_dir: Place) -> Iterator[pathlib.Path]:
  """Yields where to build what belongs into an address, and sends it there.

  Several processes may do so at once: they send the same. A data set is there when its
  description is, which arrives last.
  """
  with tempfile.TemporaryDirectory(prefix='ovs_jax_') as name:
    folder = local(name)
    yield folder
    names = [name for name, _ in below(folder)]
    names = [name for name in names if not name.endswith(_LOCK)]
    with buckets.answering(data_dir):
      for last in (False, True):
        part = [name for name in names if name.endswith(_INFO) == last]
        buckets.upload(folder, data_dir, part)
