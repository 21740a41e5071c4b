"""A user's own images as a data set, without a line of code.

    DIR/images/NAME.jpg          or images/train/NAME.jpg, images/val/NAME.jpg, ...
    DIR/masks/NAME.png           the same folders; pixel values are classes
    DIR/names.txt                a class name per line: the first is value 0, or with
                                 values of your own: 7<TAB>red ball, or 7: red ball
    DIR/captions.jsonl           optional: {"image": "NAME.jpg", "captions": ["..."]}

Or what another program wrote: see `ovs_jax.data.foreign`.

`masks` may be absent where there are captions. 255 in a mask of 8 bits, and 65535 in
one of 16, means void.
"""

import dataclasses
import functools
import hashlib
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, fingerprint, local, place, remove
from ovs_jax.core.types import VOID, VOID_16
from ovs_jax.data import build, foreign, sources
from ovs_jax.data.class_table import ClassTable, class_table
from ovs_jax.data.folder_texts import captions_of, class_names
from ovs_jax.data.seen import Seen
from ovs_jax.data.sources import Pair, Problem, Reader, SourceError
from ovs_jax.data.stored import noted, open_stored
from ovs_jax.data.written import Task
from ovs_jax.text.vocabulary import Vocabulary, own

_IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')
_TRAIN, _VAL = 'train', 'val'  # splits of images that lie in no folder of their own
_SHARE = 0.2  # of these that are val
_FEWEST = 5  # that are divided; fewer are val altogether
_LARGEST = 2**64


@dataclasses.dataclass(frozen=True)
class Source:
  """What a folder holds, as far as its listing and its text files tell.

  Attributes:
    names: of the classes; empty without masks.
    values: of the classes in masks.
    splits: pairs by split.
    captioned: whether there is a captions.jsonl.
    state: changes when any file does.
    texts: changes when any file does that is of no photo alone.
    divided: whether the splits are by a hash, and not by folders.
    read: from the `label` of a pair to the values in its mask.
  """

  names: tuple[str, ...]
  values: tuple[int, ...]
  splits: Mapping[str, list[Pair]]
  captioned: bool
  state: str
  texts: str
  divided: bool = False
  read: Callable[[pathlib.Path], sources.Labels] = sources.read_values

  def notes(self) -> list[str]:
    """Returns a sentence about how images were divided, if nobody had done it."""
    if not self.divided:
      return []
    train, val = (len(self.splits.get(name, ())) for name in (_TRAIN, _VAL))
    return [
      f'nothing says what is train, so a hash of their names divides the images: '
      f'{train} are train, {val} are val; put them into images/train and images/val '
      'to divide them yourself'
    ]


@dataclasses.dataclass(eq=False, kw_only=True)
class FolderConfig(tfds.core.BuilderConfig):
  """One folder, listed."""

  source: Source
  longest: int = 0  # side of what is stored; 0: as it is


class Folder(build.Builder):
  """Images, masks, names and captions of a user."""

  name = 'folder'
  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = __doc__

  @functools.cached_property
  def table(self) -> ClassTable | None:
    """From values in masks to train ids; None without masks."""
    source = self.builder_config.source
    if not source.names:
      return None
    # Masks of 16 bits may have few classes; 255 is one of them only where they need it.
    void = (VOID, VOID_16) if max(source.values) < VOID else (VOID_16,)
    return class_table(source.values, void)

  @functools.cached_property
  def seen(self) -> Seen:
    """What the masks that have been read hold."""
    return Seen(len(self.builder_config.source.names))

  def _info(self) -> tfds.core.DatasetInfo:
    source = self.builder_config.source
    features: dict[str, Any] = {
      'image': tfds.features.Image(shape=(None, None, 3)),
      'image_id': tfds.features.Text(),
    }
    if self.table:
      features['label'] = tfds.features.Image(
        shape=(None, None, 1), dtype=self.table.train_ids.dtype, encoding_format='png'
      )
    if source.captioned:
      features['captions'] = tfds.features.Sequence(tfds.features.Text())
    metadata = {
      'names': list(source.names),
      'values': list(source.values),
      'state': source.state,
      'longest': self.builder_config.longest,
    }
    return self.dataset_info_from_configs(
      description=self.builder_config.description,
      features=tfds.features.FeaturesDict(features),
      metadata=tfds.core.MetadataDict(metadata),
    )

  def tasks(self, source: pathlib.Path) -> dict[str, Task]:
    """Returns what each split is made of."""
    config = self.builder_config
    read = Reader(
      source, config.source.read, self.table, turn=True, longest=config.longest
    )
    every = self.builder_config.source.splits.items()
    return {k: Task(pairs, read, lambda x: True, self._encode) for k, pairs in every}

  def identity(self) -> Any:
    """Returns names, values and the other program's files."""
    source = self.builder_config.source
    longest = self.builder_config.longest
    return [source.names, source.values, source.texts, longest]

  def _encode(self, example: dict[str, Any]) -> dict[str, Any]:
    kept = {name: example[name] for name in self.info.features}
    if 'label' in kept:
      kept['label'] = sources.label_png(example)
    return kept


def survey(directory: pathlib.Path) -> Source:
  """Lists a folder and reads its text files.

  Raises:
    SourceError: with everything that is missing or wrong.
  """
  if (other := foreign.recognise(directory)) is not None:
    return _foreign(other(directory), directory)
  problems: list[Problem] = []
  images = directory / 'images'
  paths = [p for p in _shown(images) if p.suffix.lower() in _IMAGES]
  masks = {p.with_suffix(''): p for p in _shown(directory / 'masks') if _is_mask(p)}
  if not paths:
    problems.append(Problem('missing', f'no images in {images}'))
  names, values = class_names(directory, problems)
  captions = captions_of(directory, problems)
  if not names and not captions and not problems:
    what = 'neither masks/ with names.txt nor captions.jsonl'
    problems.append(Problem('missing', what))
  splits: dict[str, list[Pair]] = {}
  pairs: dict[str, Pair] = {}
  for path in paths:
    inside = path.relative_to(images)
    key = inside.with_suffix('').as_posix()
    if key in pairs:
      what = f'images/{inside.as_posix()} and {pairs[key].image.name} share one mask'
      problems.append(Problem('unreadable', what))
    label = directory / 'masks' / inside.with_suffix('.png') if names else None
    label = label and masks.get(label.with_suffix(''), label)
    pairs[key] = Pair(key, path, label, captions.pop(inside.as_posix(), ()))
    if label is not None and not label.is_file():
      problems.append(Problem('missing', label.relative_to(directory).as_posix()))
    split = inside.parts[0] if len(inside.parts) > 1 else ''
    splits.setdefault(split, []).append(pairs[key])
  splits, divided = _divided(splits)
  problems += [
    Problem('wrong text', f'captions.jsonl names {name}, which is not in images/')
    for name in captions
  ]
  if problems:
    raise SourceError(f'{directory} is no folder data set', problems)
  return Source(
    names=names,
    values=values,
    splits=splits,
    captioned=(directory / 'captions.jsonl').is_file(),
    state=_state(directory, [*paths, *masks.values(), *_texts(directory)]),
    texts='',  # names and captions are looked at themselves
    divided=divided,
  )


def _foreign(found: foreign.Listing, path: pathlib.Path) -> Source:
  """What another program wrote, as a folder."""
  splits, divided = _divided(dict(found.splits))
  photos = [pair.image for pairs in found.splits.values() for pair in pairs]
  folder = path if path.is_dir() else path.parent
  return Source(
    names=found.names,
    values=tuple(range(len(found.names))),
    splits=splits,
    captioned=False,
    state=_state(folder, [*photos, *found.files]),
    texts=_state(folder, found.files),
    divided=divided,
    read=found.read,
  )


def _divided(
  splits: dict[str, list[Pair]],
) -> tuple[dict[str, list[Pair]], bool]:
  """Divides the images of no split, if there are no others; else they are `val`."""
  loose = splits.get('', [])
  divided = list(splits) == [''] and len(loose) >= _FEWEST
  named = {name: pairs for name, pairs in splits.items() if name}
  if loose:
    for name, found in divide(loose).items() if divided else [(_VAL, loose)]:
      named[name] = named.get(name, []) + found
  return named, divided


def divide(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
  """Returns `train` and `val` of images that nobody has divided.

  Each image is in `val` by a hash of its name, with a probability of 20 %, so that it
  stays where it is when others are added. There are 10 % in any case.
  """

  def draw(pair: Pair) -> float:
    digest = hashlib.sha256(f'ovs_jax split 0 {pair.image_id}'.encode()).digest()
    return int.from_bytes(digest[:8], 'big') / _LARGEST

  draws = {pair.image_id: draw(pair) for pair in pairs}
  ordered = sorted(draws.values())
  limit = max(ordered[-(-len(pairs) // 10) - 1], _SHARE)
  limit = min(limit, ordered[-2])  # one is left to train
  found: dict[str, list[Pair]] = {_TRAIN: [], _VAL: []}
  for pair in pairs:
    found[_VAL if draws[pair.image_id] <= limit else _TRAIN].append(pair)
  return found


def _shown(directory: pathlib.Path) -> list[pathlib.Path]:
  """The files below a directory, in order, without hidden ones such as macOS makes."""
  found = sorted(directory.rglob('*'))
  return [
    p for p in found if not any(x[0] == '.' for x in p.relative_to(directory).parts)
  ]


def _is_mask(path: pathlib.Path) -> bool:
  return path.suffix.lower() == '.png'


def _texts(directory: pathlib.Path) -> list[pathlib.Path]:
  paths = (directory / name for name in ('names.txt', 'captions.jsonl'))
  return [path for path in paths if path.is_file()]


def _state(directory: pathlib.Path, files: Sequence[pathlib.Path]) -> str:
  """A hash of the names, sizes and times of all files."""
  stats = [(sources.name_below(directory, p), p.stat()) for p in files]
  found = [(name, s.st_size, s.st_mtime_ns) for name, s in stats]
  return fingerprint(['divided by a hash', *found])


def variant_of(directory: pathlib.Path) -> str:
  """Returns the name a folder is prepared under: its own and a hash of its path."""
  path = directory.resolve()
  digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
  return f'{re.sub(r"[^A-Za-z0-9]+", "_", path.name).strip("_") or "root"}_{digest}'


def prepare(data_dir: Any, directory: Any, longest: int | None = None) -> Any:
  """Returns the builder of a folder, built anew if the folder changed.

  Args:
    data_dir: where TFDS keeps its data sets.
    directory: the folder; `config.dataset.variant` of the data set `folder`.
    longest: side that photos and masks are stored with at most; 0: as they are; None:
      as they were stored before, if they were.

  Raises:
    FileNotFoundError: there is no such folder.
    SourceError: with everything that is wrong with it.
  """
  directory = local(directory).resolve()
  data_dir = place(data_dir, schemes=('gs',))
  if not directory.exists():
    raise FileNotFoundError(
      f'folder {directory} not found; set config.dataset.variant to a directory with '
      'images/, masks/ and names.txt (see docs/datasets.md)'
    )
  variant, source = variant_of(directory), survey(directory)

  def make() -> Folder:
    description = f'Images of {directory.name}.'
    config = FolderConfig(
      name=variant, description=description, source=source, longest=longest or 0
    )
    return Folder(data_dir=data_dir, config=config)

  folder = data_dir / 'folder' / variant
  if not isinstance(folder, pathlib.Path):
    stored = _stored(folder)
    longest = _longest(stored) if longest is None else longest
    if not _is_of(stored, source, longest):
      remove(folder)
      with build.nearby(data_dir) as near:
        prepare(near, directory, longest)
    return _stored(folder)
  with build.locked(folder):
    stored = _stored(folder)
    longest = _longest(stored) if longest is None else longest
    if not _is_of(stored, source, longest):
      # A folder prepared earlier has other features: TFDS must not find it.
      remove(folder / '1.0.0')
      builder = make()
      build.build(builder, directory if directory.is_dir() else directory.parent)
      notes = builder.seen.notes(source.names, source.values)
      for note in (*source.notes(), *notes):
        print(f'note: {directory}: {note}', file=sys.stderr)
  return _stored(folder)


def _is_of(stored: Any | None, source: Source, longest: int) -> bool:
  """Whether what is stored was made of the files of now, in that size."""
  if stored is None or noted(stored, 'state', str) != source.state:
    return False
  return _longest(stored) == longest


def _longest(stored: Any | None) -> int:
  """The size that was asked for when it was stored; 0 in what is older than that."""
  if stored is None or 'longest' not in (stored.info.metadata or {}):
    return 0
  return noted(stored, 'longest', int)


def _stored(folder: Place) -> Any | None:
  path = folder / '1.0.0'
  if not (path / 'dataset_info.json').exists():
    return None
  return open_stored(path)


def vocabulary_of(builder: Any) -> Vocabulary:
  """Returns the class list of a prepared folder.

  Raises:
    ValueError: it has no masks, and so no classes.
  """
  names, values = (
    tuple(noted(builder, 'names', list)),
    tuple(noted(builder, 'values', list)),
  )
  if not names:
    raise UserError(
      f'{builder.info.full_name} has no classes; add masks/ and names.txt to the folder'
    )
  return own('folder', names, values)
