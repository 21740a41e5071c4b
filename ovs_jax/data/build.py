"""Building a TFDS data set from files: whole or not at all, one process at a time.

A killed build leaves folders that the next one sweeps away; a build with problems
leaves nothing but the list of them.
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
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tqdm.auto import tqdm

from ovs_jax.core import buckets
from ovs_jax.core.files import Place, below, local, place, remove, write_text
from ovs_jax.core.preemption import Stopped, pause
from ovs_jax.data.sources import Problem, SourceError

PROBLEMS = 'problems.txt'
_LOCK = '.prepare.lock'
_LOCK_EVERY = 0.2  # seconds between looks whether another process is done
_INFO = 'dataset_info.json'  # TFDS writes it when all else is there
_SPACE = 2.2  # TFDS sorts the examples on disk before it writes them


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """What `build` needs of a TFDS builder: it finds out all problems as it generates."""

  url_infos = {}  # nothing is downloaded: no checksum file to look for
  progress: tqdm | None = None  # advanced by one per example, if given

  @functools.cached_property
  def problems(self) -> list[Problem]:
    """What is wrong with the source, as far as it has been read."""
    return []

  @abc.abstractmethod
  def total(self, source: pathlib.Path) -> tuple[int, int]:
    """Returns how many examples there will be at most, and their images' bytes."""


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


def advance(builder: tfds.core.DatasetBuilder) -> None:
  """Notes that one more example is read; between examples a build can be stopped.

  Raises:
    Stopped: SIGTERM came; nothing of the build is kept.
  """
  if builder.progress is not None:
    builder.progress.update()
  pause(f'{builder.name} was not finished, and will be built anew')


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
  """Reads everything below `source` and writes it, after sweeping away what was killed.

  Raises:
    SourceError: with all problems; they are also in problems.txt beside the data.
    OSError: the disk is full or cannot be written.
    Stopped: SIGTERM came; nothing is kept.
  """
  target = local(builder.data_dir)
  target.parent.mkdir(parents=True, exist_ok=True)
  report = target.parent / PROBLEMS
  report.unlink(missing_ok=True)
  for stale in target.parent.glob(f'{tfds.core.constants.INCOMPLETE_PREFIX}*'):
    shutil.rmtree(stale)
  remove(target)
  total, size = builder.total(source)
  free = shutil.disk_usage(target.parent).free
  if free < _SPACE * size:
    raise OSError(
      f'{target.parent} has {free / 1e9:.1f} GB free, building {builder.name} takes '
      f'about {_SPACE * size / 1e9:.1f} GB; choose another --data_dir'
    )
  config = tfds.download.DownloadConfig(manual_dir=source)
  label = f'{builder.name}/{builder.builder_config.name}'
  try:
    bar = tqdm(total=total, desc=label, unit=' images')
    with bar as progress, quiet_tfds(), same_records():
      builder.progress = progress
      builder.download_and_prepare(download_config=config)
  except Exception as error:
    if isinstance(error, Stopped) or not builder.problems:
      raise
    # Also when TFDS stumbled first, over a split that the problems left empty.
    failure = SourceError(f'{builder.name} cannot be built', builder.problems)
    write_text(report, failure.listing())
    failure.add_note(f'All of them are in {report}.')
    raise failure from error


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
