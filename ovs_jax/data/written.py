"""Writing a data set file by file, so that one that was killed goes on.

Files of records come into a folder of their own, and a note of what is in each into
another. When all are there they get their names, what describes them is written, and
the folder takes its place. Examples have the order that TFDS gives them: by a hash.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  clear_temporaries,
  fingerprint,
  read_mapping,
  remove,
  write_json,
)
from ovs_jax.data.frames import write_records
from ovs_jax.data.seen import Seen
from ovs_jax.data.sources import Pair, Problem, ordered_map

FOLDER = 'partial'  # beside the data set to come
_PER_FILE = 256  # examples, of which a kill loses this many
_NOTE = {'of': str, 'kept': int, 'size': int, 'seen': list}
_JOINING = 'joining.json'  # among the notes: which file gets which name

Example = dict[str, Any]
Read = Callable[[Pair], tuple[Example | None, list[Problem]]]


@dataclasses.dataclass(frozen=True)
class Task:
  """A split to write.

  Attributes:
    pairs: the files of its examples.
    read: from these to an example, whose `counts`, if it has any, are of train ids; or
      to None and what is wrong.
    keep: whether an example belongs in the data set.
    encode: from an example to the features of the data set.
  """

  pairs: Sequence[Pair]
  read: Read
  keep: Callable[[Example], bool]
  encode: Callable[[Example], Example]


@dataclasses.dataclass(frozen=True)
class _Part:
  """Some examples of a split, and the files that have them."""

  split: str
  pairs: Sequence[Pair]
  records: pathlib.Path
  note: pathlib.Path


class Writer:
  """A data set that is being written, or goes on being."""

  def __init__(
    self,
    info: tfds.core.DatasetInfo,
    tasks: Mapping[str, Task],
    folder: pathlib.Path,
    *,
    identity: Any,
    seen: Seen | None,
  ) -> None:
    """Looks at what is there; what was written of other files is taken away.

    Args:
      info: of the data set; it gets the splits.
      tasks: by split.
      folder: where its files and notes come.
      identity: what examples depend on, beside their files, as JSON.
      seen: is told of all labels.
    """
    self._info, self._tasks, self._folder = info, tasks, folder
    self._data, self._notes_at = folder / 'data', folder / 'notes'
    self._identity, self._seen = identity, seen
    self._serializer = ExampleSerializer(info.features.get_serialized_info())
    self._parts = list(self._divided())
    self._states = {part.records: self._state(part) for part in self._parts}
    for place in (self._data, self._notes_at):
      place.mkdir(parents=True, exist_ok=True)
      clear_temporaries(place)
    self._take_names_back()
    found = {i: self._read_note(part) for i, part in enumerate(self._parts)}
    self._notes = {i: note for i, note in found.items() if note is not None}
    known = [self._parts[i] for i in self._notes]
    kept = {path for part in known for path in (part.records, part.note)}
    for path in (*self._data.iterdir(), *self._notes_at.iterdir()):
      if path not in kept:
        remove(path)

  def _take_names_back(self) -> None:
    """What was killed while it gave files their names has them as they were."""
    note = self._notes_at / _JOINING
    names = read_mapping(note) if note.is_file() else {}
    for final, own in names.items():
      if (self._data / final).is_file():
        os.replace(self._data / final, self._data / own)

  @property
  def done(self) -> int:
    """How many examples need not be read again."""
    return sum(len(self._parts[i].pairs) for i in self._notes)

  @property
  def size(self) -> int:
    """Bytes of the records that are there."""
    return sum(note['size'] for note in self._notes.values())

  def _divided(self) -> Iterator[_Part]:
    for split, task in self._tasks.items():
      ids = [pair.image_id for pair in task.pairs]
      if len(set(ids)) < len(ids):
        twice = next(x for x in ids if ids.count(x) > 1)
        raise UserError(f'the split {split} has the image {twice} twice')
      hasher = hashing.Hasher(split)
      ordered = sorted(task.pairs, key=lambda pair: hasher.hash_key(pair.image_id))
      for index, start in enumerate(range(0, len(ordered), _PER_FILE)):
        name = f'{split}-{index:06d}'
        yield _Part(
          split,
          ordered[start : start + _PER_FILE],
          self._data / f'{name}.tfrecord',
          self._notes_at / f'{name}.json',
        )

  def _state(self, part: _Part) -> str:
    files = [
      (p.image_id, p.captions, _stat(p.image), p.label and str(p.label))
      + ((_stat(p.label),) if p.label else ())
      for p in part.pairs
    ]
    return fingerprint([self._identity, files])

  def _read_note(self, part: _Part) -> dict[str, Any] | None:
    """Returns what is known of a part that is whole, and of the files of now."""
    if not part.note.is_file():
      return None
    try:
      note = read_mapping(part.note, **_NOTE)
    except ValueError:  # damaged: it is read again
      return None
    if note['of'] != self._states[part.records]:
      return None
    return note if part.records.is_file() or not note['kept'] else None

  def write(self, advance: Callable[[], None]) -> list[Problem]:
    """Reads and writes what is not there; returns all that is wrong with it.

    Args:
      advance: is called after each example; what it raises ends the writing.
    """
    problems: list[Problem] = []
    missing = [i for i in range(len(self._parts)) if i not in self._notes]
    wanted = ((i, pair) for i in missing for pair in self._parts[i].pairs)
    found = ordered_map(self._read, wanted)
    for i in missing:
      part, sizes, wrong = self._parts[i], [], []
      seen = self._seen and self._seen.fresh()
      write_records(part.records, _records(part, found, advance, sizes, wrong, seen))
      if wrong or not sizes:
        remove(part.records)
      if not wrong:
        self._notes[i] = self._note(part, sizes, seen)
      problems += wrong
    return problems

  def _read(self, given: tuple[int, Pair]) -> tuple[bytes | None, Any, list[Problem]]:
    i, pair = given
    task = self._tasks[self._parts[i].split]
    example, problems = task.read(pair)
    if example is None or not task.keep(example):
      return None, None, problems
    encoded = self._info.features.encode_example(task.encode(example))
    record = self._serializer.get_tf_example(encoded)
    return record.SerializeToString(deterministic=True), example.get('counts'), problems

  def _note(
    self, part: _Part, sizes: Sequence[int], seen: Seen | None
  ) -> dict[str, Any]:
    """Writes down that a part is whole."""
    note = {
      'of': self._states[part.records],
      'kept': len(sizes),
      'size': sum(sizes),
      'seen': [] if seen is None else seen.to_json(),
    }
    write_json(part.note, note)
    return note

  def finish(self, target: pathlib.Path) -> None:
    """Gives the files their names and describes them; the folder becomes `target`.

    Raises:
      UserError: a split has no example.
    """
    used = {split: self._used(split) for split in self._tasks}
    names = {
      part.records.name: f'{self._info.name}-{split}.tfrecord-{i:05d}-of-{len(own):05d}'
      for split, own in used.items()
      for i, (part, _) in enumerate(own)
    }
    write_json(self._notes_at / _JOINING, {final: own for own, final in names.items()})
    for own, final in names.items():
      os.replace(self._data / own, self._data / final)
    splits = [self._described(split, own) for split, own in used.items()]
    self._info.set_file_format('tfrecord', override=True)
    self._info.set_splits(tfds.core.splits.SplitDict(splits))
    self._info.write_to_directory(self._data)
    for note in self._notes.values():
      if self._seen is not None:
        self._seen.update(note['seen'])
    os.replace(self._data, target)
    remove(self._folder)

  def clear(self) -> None:
    """Removes the folder if nothing in it is worth going on with."""
    if not self._notes:
      remove(self._folder)

  def _used(self, split: str) -> list[tuple[_Part, dict[str, Any]]]:
    """The parts of a split that have any example, and their notes."""
    every = [(part, self._notes[i]) for i, part in enumerate(self._parts)]
    found = [x for x in every if x[0].split == split and x[1]['kept']]
    if not found:
      raise UserError(f'no image of the split {split} has a pixel of any class')
    return found

  def _described(
    self, split: str, used: Sequence[tuple[_Part, dict[str, Any]]]
  ) -> tfds.core.SplitInfo:
    template = tfds.core.ShardedFileTemplate(
      data_dir=self._data,
      dataset_name=self._info.name,
      split=split,
      filetype_suffix='tfrecord',
    )
    return tfds.core.SplitInfo(
      name=split,
      shard_lengths=[note['kept'] for _, note in used],
      num_bytes=sum(note['size'] for _, note in used),
      filename_template=template,
    )


def _records(
  part: _Part,
  found: Iterator[tuple[bytes | None, Any, list[Problem]]],
  advance: Callable[[], None],
  sizes: list[int],
  wrong: list[Problem],
  seen: Seen | None,
) -> Iterator[bytes]:
  """Yields the records of a part; notes their sizes, and what is wrong with others."""
  for pair in part.pairs:
    record, counts, problems = next(found)
    wrong += problems
    if record is not None:
      if seen is not None and counts is not None:
        seen.add(pair.image_id, counts)
      sizes.append(len(record))
      yield record
    advance()


def _stat(path: pathlib.Path) -> list[int] | None:
  """Size and time of a file; None where what names a mask is none."""
  try:
    found = path.stat()
  except OSError:
    return None
  return [found.st_size, found.st_mtime_ns]
