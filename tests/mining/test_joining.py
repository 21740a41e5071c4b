"""From chunks to a data set: nothing is held, lost, doubled or taken half-written."""

import pathlib
import shutil
import tracemalloc
from collections.abc import Callable
from typing import Any

import drawn_chunks
import numpy as np
import pytest
import tensorflow_datasets as tfds

from ovs_jax.core import files
from ovs_jax.core.buckets import Copy
from ovs_jax.core.files import below, place
from ovs_jax.data import pairs, pipeline, shards
from ovs_jax.data.shards import Shards
from ovs_jax.mining import chunks, joining, sheet, table

# Noun, image and score of the pairs of four chunks: one without any pair, one of which
# all stay at most two of a noun, one of which some stay, and one of which none stays.
PARTS = [
  [],
  [('dog', 'a', 0.9), ('cat', 'a', 0.1)],
  [('dog', 'b', 0.7), ('dog', 'c', 0.8), ('sky', 'c', 0.2)],
  [('dog', 'd', 0.7)],
]
RULE = {'max_per_noun': 2, 'min_noun_count': 0}
STAY = [0, 1, 3, 4]


class Killed(BaseException):
  """Stands for the end of a process."""


class Death:
  """Ends the process before or after a change of the disk; then nothing changes it."""

  def __init__(self, at: int, *, after: bool) -> None:
    """Counts changes from 1 on."""
    self.left, self.after, self.dead = at, after, False

  def stands_before(self, change: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the change, which may be the one that is not made or the last."""

    def made(*args: Any, **options: Any) -> Any:
      if self.dead:  # what `finally` would do, and a killed process does not
        return None
      self.left -= 1
      self.dead = self.left == 0
      if not self.dead or self.after:
        found = change(*args, **options)
      if self.dead:
        raise Killed
      return found

    return made


@pytest.fixture
def chunked(tmp_path: pathlib.Path) -> pathlib.Path:
  """Returns a working directory of which all chunks are mined."""
  drawn_chunks.write(tmp_path / 'given' / 'chunks', PARTS)
  return tmp_path / 'given'


def contents(directory: pathlib.Path) -> dict[str, bytes]:
  return {name: (directory / name).read_bytes() for name, _ in below(directory)}


def finish(workdir: pathlib.Path) -> None:
  drawn_chunks.join(workdir, len(PARTS), rule=RULE)
  joining.clean_up(workdir, seed=0)


@pytest.mark.parametrize('after', [False, True])
def test_a_kill_at_any_change_ends_in_the_same_bytes(
  after: bool,
  chunked: pathlib.Path,
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(sheet, '_text', lambda found: f'{found["pairs"]} pairs\n')
  whole = shutil.copytree(chunked, tmp_path / 'whole')
  finish(whole)
  expected = contents(whole)
  assert not (whole / 'chunks').exists()
  assert {name.split('/')[0] for name in expected} == {
    *('pairs', 'summary.md', 'summary.png')
  }
  for at in range(1, 100):
    workdir = shutil.copytree(chunked, tmp_path / f'{at}')
    death = Death(at, after=after)
    with monkeypatch.context() as patch:
      patch.setattr(files.os, 'replace', death.stands_before(files.os.replace))
      patch.setattr(files, '_remove', death.stands_before(files._remove))
      patch.setattr(joining, 'remove', death.stands_before(files.remove))
      try:
        finish(workdir)
      except Killed:
        pass
    if not death.dead:
      break
    if pairs.is_written(workdir / 'pairs'):  # as a job that is started again
      joining.clean_up(workdir, seed=0)
    else:
      finish(workdir)
    assert contents(workdir) == expected, at
    shutil.rmtree(workdir)
  assert at > 20  # 2 files moved or copied, 3 removed, 8 written, and the clean-up


def test_the_data_set_has_the_pairs_that_stay_in_order(chunked: pathlib.Path) -> None:
  given = chunks.records_path(chunked / 'chunks', 1).read_bytes()
  keep = drawn_chunks.join(chunked, len(PARTS), rule=RULE)
  assert np.flatnonzero(keep).tolist() == STAY
  directory = chunked / 'pairs'
  # The chunk of which all stay is a file of the data set; empty ones are none.
  assert pairs.file_path(directory, 0, 2).read_bytes() == given
  builder = tfds.builder_from_directory(str(directory / 'pairs' / '1.0.0'))
  assert builder.info.splits['train'].shard_lengths == [2, 2]
  assert builder.info.splits['train'].num_examples == 4
  by_tfds = [int(x['proposal']) for x in tfds.as_numpy(builder.as_dataset('train'))]
  assert by_tfds == STAY
  rows = [row for part in PARTS for row in part]
  for number, got in zip(STAY, pipeline.examples(builder, 'train'), strict=True):
    drawn = drawn_chunks.pair(number, rows[number])
    np.testing.assert_array_equal(got['image'], drawn['image'])
    np.testing.assert_array_equal(got['mask'], drawn['mask'][..., 0])
    assert got['score'] == np.float32(drawn['score'])
  assert pairs.nouns(directory) == [rows[i][0] for i in STAY]
  reader = Shards([pairs.load(directory)], 'train')
  found = reader.dataset(np.array([3, 0])).as_numpy_iterator()
  assert [int(x['proposal']) for x in found] == [4, 0]


def test_a_half_written_chunk_is_none(chunked: pathlib.Path) -> None:
  folder = chunked / 'chunks'
  assert chunks.missing(folder, range(5)) == [4]
  file = chunks.records_path(folder, 2)
  file.write_bytes(file.read_bytes()[:-1])
  assert chunks.missing(folder, range(4)) == [2]
  chunks.table_path(folder, 3).unlink()  # killed between both files
  assert chunks.missing(folder, range(4)) == [2, 3]
  with pytest.raises(ValueError, match=r'000002.tfrecord has \d+ bytes, expected'):
    drawn_chunks.join(chunked, 3)
  file.unlink()
  with pytest.raises(ValueError, match=r'000002.tfrecord has 0 bytes, expected'):
    drawn_chunks.join(chunked, 3)


def test_a_data_set_without_its_end_is_none(chunked: pathlib.Path) -> None:
  drawn_chunks.join(chunked, len(PARTS))
  (chunked / 'pairs' / 'datasheet.json').unlink()
  with pytest.raises(FileNotFoundError, match='holds no mined pairs'):
    pairs.load(chunked / 'pairs')


def test_the_rule_cannot_change_once_pairs_are_left_out(
  chunked: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def killed(*args: Any, **options: Any) -> None:
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(pairs, 'describe', killed)
    with pytest.raises(Killed):
      drawn_chunks.join(chunked, len(PARTS), rule=RULE)
  assert joining.has_begun(chunked / 'chunks')
  other = {**RULE, 'max_per_noun': 3}
  with pytest.raises(ValueError, match="'max_per_noun': 2.*now.*'max_per_noun': 3"):
    drawn_chunks.join(chunked, len(PARTS), rule=other)
  drawn_chunks.join(chunked, len(PARTS), rule=RULE)


def test_what_an_earlier_job_left_is_no_part_of_it(chunked: pathlib.Path) -> None:
  """A file of another job that was killed while joining, at a name of this one."""
  left = pairs.file_path(chunked / 'pairs', 0, 2)
  left.parent.mkdir(parents=True)
  given = chunks.records_path(chunked / 'chunks', 1).read_bytes()
  left.write_bytes(bytes(len(given)))
  drawn_chunks.join(chunked, len(PARTS), rule=RULE)
  assert left.read_bytes() == given


def test_memory_does_not_grow_with_the_data(tmp_path: pathlib.Path) -> None:
  """8 and 32 MB of pairs, of which some are left out of every chunk."""
  peaks = []
  for count in (4, 16):
    workdir = tmp_path / f'{count}'
    rows = [[(f'{i % 3}', f'{k}', 0.0) for i in range(8)] for k in range(count)]
    drawn_chunks.write(workdir / 'chunks', rows, side=290)
    assert sum(size for _, size in below(workdir)) > 2_000_000 * count
    tracemalloc.start()
    drawn_chunks.join(workdir, count, left=range(0, 8 * count, 8))
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
  assert max(peaks) < 3_000_000


def test_memory_of_writing_pairs_does_not_grow_either(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(pairs, '_PER_FILE', 8)
  given = (drawn_chunks.pair(i, ('dog', f'{i}', 0.0), side=290) for i in range(100))
  tracemalloc.start()
  pairs.write(
    tmp_path / 'pairs', ({k: p[k] for k in pairs.features()} for p in given), {}
  )
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  size = sum(size for _, size in below(tmp_path))
  assert size > 25_000_000 and peak < 10_000_000
  assert len(list(pipeline.examples(pairs.load(tmp_path / 'pairs'), 'train'))) == 100


def test_the_summary_reads_what_it_shows(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  parts = [[('dog', f'{k}', 0.5)] * 2 for k in range(60)]
  drawn_chunks.write(tmp_path / 'chunks', parts)
  drawn_chunks.join(tmp_path, len(parts))
  monkeypatch.setattr(sheet, '_text', lambda found: '')
  read: list[str] = []
  original = shards.record_starts

  def noted(part: Any) -> Any:
    read.append(part.filename)
    return original(part)

  monkeypatch.setattr(shards, 'record_starts', noted)
  joining.clean_up(tmp_path, seed=0)
  assert 12 <= len(read) <= 24  # pictures, of 60 files


def test_a_table_holds_numbers(tmp_path: pathlib.Path) -> None:
  drawn_chunks.write(tmp_path, PARTS)
  found, notes = table.read(tmp_path, len(PARTS))
  assert [found.names[k] for k in found.noun] == [x[0] for part in PARTS for x in part]
  assert found.image.tolist() == [0, 0, 1, 2, 2, 3]
  assert found.score.tolist() == [x[2] for part in PARTS for x in part]
  assert found.area.tolist() == [9] * 6 and notes.images == 8
  assert [found.chunk(i) for i in range(4)] == [
    *(slice(0, 0), slice(0, 2), slice(2, 5), slice(5, 6))
  ]


def test_selection_by_counts() -> None:
  noun = np.array([0, 1, 0, 0, 2, 2])
  score = np.array([0.1, 0.5, 0.3, 0.3, 0.2, 0.1])

  def stay(most: int, least: int) -> list[int]:
    return np.flatnonzero(table.select(noun, score, most=most, least=least)).tolist()

  assert stay(0, 0) == [0, 1, 2, 3, 4, 5]
  assert stay(2, 0) == [1, 2, 3, 4, 5]
  assert stay(1, 2) == [2, 4]
  assert stay(0, 3) == [0, 2, 3]
  assert table.select(noun[:0], score[:0], most=1, least=0).tolist() == []


def test_chunks_in_a_bucket(bucket: str) -> None:
  workdir = place(bucket)
  drawn_chunks.write(workdir / 'chunks', PARTS)
  assert chunks.missing(workdir / 'chunks', range(5)) == [4]
  drawn_chunks.join(workdir, len(PARTS), rule=RULE)
  assert [name for name, _ in below(workdir / 'chunks')] == [
    *(f'{i:06d}.json' for i in range(4)),
    'joining.json',
  ]
  copy = Copy(workdir / 'pairs')  # TensorFlow would need the network of its own
  got = pipeline.examples(pairs.load(copy.path), 'train')
  assert [int(x['proposal']) for x in got] == STAY
