"""The mining job: captions + proposals + CLIP -> mask-noun pairs.

Images are worked off in chunks, which hosts take in turns; they need one directory that
all of them see. Each finished chunk is a file of the data set to come; a killed job
goes on with the chunks that are missing, and the data set is joined when all are there.
"""

import collections
import functools
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ovs_jax.core import hosts
from ovs_jax.core.checkpoint import identity
from ovs_jax.core.devices import give_back_memory
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  check_writable,
  place,
  read_mapping,
  write_json,
)
from ovs_jax.core.preemption import apart, pause
from ovs_jax.core.runlog import progress
from ovs_jax.core.workers import Workers
from ovs_jax.data import load_dataset, pairs
from ovs_jax.data.records import decode_example, encoded_examples
from ovs_jax.data.shards import Shards
from ovs_jax.mining import chunks, disk, joining, sheet, table
from ovs_jax.mining.candidates import check_sources
from ovs_jax.mining.chunks import Notes, Stored
from ovs_jax.mining.miner import Miner, Started, finish
from ovs_jax.settings import Settings

_MADE_WITH = 'made_with.json'  # what chunks were mined with, beside them
# Settings that no chunk depends on; of a checkpoint its version counts.
_OF_NO_CHUNK = ('checkpoint', 'disk_megabytes', 'max_per_noun', 'min_noun_count')
_EARLY = 64  # captions without any noun after which something must be wrong


def mine(config: Settings, workdir: Place) -> dict[str, Any]:
  """Mines `config.mining.split` of the data set into `workdir/pairs`.

  Returns:
    The datasheet: counts, the most frequent nouns, settings, sources, noun backend.

  Raises:
    FileNotFoundError, ValueError: no checkpoint, or of another model; settings that the
      data set cannot serve; or no nouns, proposals or pairs.
    OSError: `workdir` cannot be written.
    Stopped: SIGTERM came; the chunks that are there will not be mined again.
  """
  give_back_memory()  # what jobs before have left in this process
  began = time.time()
  c = config.mining
  workdir = check_writable(workdir, megabytes=0)
  _, builder = load_dataset(config.dataset)
  check_sources(c, list(builder.info.features))
  if not pairs.is_written(workdir / 'pairs'):
    _mine(config, builder, workdir)
  elif hosts.primary():
    joining.clean_up(workdir, seed=config.seed)
  found = pairs.datasheet(workdir / 'pairs')
  return {**found, 'seconds': round(time.time() - began, 1)}


def _mine(config: Settings, builder: Any, workdir: Place) -> None:
  """Mines what is missing, and writes the data set."""
  c = config.mining
  captions = read_captions(c.caption_file) if c.caption_file else None
  shards = Shards([builder], c.split)
  folder = workdir / 'chunks'
  folder.mkdir(parents=True, exist_ok=True)
  count = -(-len(shards) // c.chunk)
  if to_come := chunks.share_to_come(folder, count):
    needed = c.disk_megabytes or disk.megabytes(c, shards)
    check_writable(workdir, megabytes=round(to_come * needed))
  with Workers() as workers:
    miner = Miner(config, captions, workers=workers)
    _check_settings(folder, _made_with(config, builder, miner))
    with apart(f'the chunks of {config.name}'):
      if not joining.has_begun(folder):
        _mine_chunks(config, shards, miner, folder, count)
  with apart(f'writing the pairs of {config.name}'):
    if _place()[0] == 0:
      _finish(config, builder, miner, workdir, count)


def _made_with(config: Settings, builder: Any, miner: Miner) -> dict[str, Any]:
  """What a chunk depends on, as JSON gives it back."""
  c = config.mining
  settings = {k: v for k, v in vars(c).items() if k not in _OF_NO_CHUNK}
  model = None if miner.described is None else identity(c.checkpoint)
  found = {
    **settings,
    'model': model,
    'source': builder.info.full_name,
    'noun_backend': miner.backend,
    'template': config.text.train_template,
    'region': vars(config.region),
  }
  return json.loads(json.dumps(found))


def _check_settings(folder: Place, now: dict[str, Any]) -> None:
  """Refuses chunks of other settings, of another model, or of an earlier version.

  Raises:
    ValueError: there are some.
  """
  note = folder / _MADE_WITH
  again = 'delete that directory to mine all images anew'
  if note.is_file():
    before = read_mapping(note)
    names = sorted(before.keys() | now.keys())
    other = [
      f'{name} {before.get(name)!r} (now {now.get(name)!r})'
      for name in names
      if before.get(name) != now.get(name)
    ]
    if other:
      raise UserError(
        f'the chunks in {folder} were mined with {", ".join(other)}; {again}'
      )
  elif any(path.suffix == '.npz' for path in folder.iterdir()):
    raise UserError(f'the chunks in {folder} are of an earlier version; {again}')
  elif hosts.primary():
    write_json(note, now)


def _mine_chunks(
  config: Settings, shards: Shards, miner: Miner, folder: Place, count: int
) -> None:
  """Mines this host's chunks that are not there."""
  host, hosts_in_all = _place()
  own = range(host, count, hosts_in_all)
  missing = chunks.missing(folder, own)
  done = len(own) - len(missing)
  mined = _mined(config, shards, miner, missing)
  seen = Notes()
  title = f'{config.name}: mine'
  for i, found, notes in progress(mined, total=len(missing), title=title):
    seen.add(notes)
    _check_nouns(seen, miner, early=True)
    chunks.write_chunk(folder, i, found, notes)
    done += 1
    pause(f'{done} of {len(own)} chunks are mined')


def _mined(
  config: Settings, shards: Shards, miner: Miner, indices: Sequence[int]
) -> Iterator[tuple[int, list[Stored], Notes]]:
  """Yields chunks in order; the next one is under way while one is waited for."""
  running: collections.deque[tuple[int, Started]] = collections.deque()
  store = functools.partial(
    chunks.store,
    shortest=config.mining.crop_shortest,
    crop_format=config.mining.crop_format,
  )
  for i in indices:
    first = i * config.mining.chunk
    last = min(first + config.mining.chunk, len(shards))
    started = miner.start(
      list(encoded_examples(shards, np.arange(first, last))),
      before=functools.partial(decode_example, shards),
      after=store,
    )
    running.append((i, started))
    if len(running) > 1:
      before, started = running.popleft()
      yield (before, *finish(started))
  for i, started in running:
    yield (i, *finish(started))


def _place() -> tuple[int, int]:
  """The number of this host, and of all."""
  return jax.process_index(), jax.process_count()


def _check_nouns(notes: Notes, miner: Miner, *, early: bool) -> None:
  """Stops a job whose captions hold no nouns, before it has gone through all."""
  if miner.backend['backend'] == 'classes':
    return
  if not notes.captions and (not early or notes.images >= _EARLY):
    raise UserError(
      f'{notes.images} images have no captions; of config.mining.caption_file, image '
      'ids must be names of files without their ending'
    )
  none = notes.images - notes.without_captions == notes.without_nouns
  if none and (not early or notes.captions >= _EARLY):
    raise UserError(
      f'the backend {miner.backend["backend"]!r} finds no noun in {notes.captions} '
      'captions; are they English sentences? Choose config.mining.backend or '
      'config.mining.pipeline'
    )


def _finish(
  config: Settings, builder: Any, miner: Miner, workdir: Place, count: int
) -> None:
  """Writes the data set, its datasheet and its summary from all chunks."""
  c = config.mining
  folder = workdir / 'chunks'
  found, notes = table.read(folder, count)
  _check_nouns(notes, miner, early=False)
  rule = {name: getattr(c, name) for name in ('max_per_noun', 'min_noun_count')}
  keep = table.select(
    found.noun, found.score, most=c.max_per_noun, least=c.min_noun_count
  )
  if not keep.any():
    raise UserError(
      f'no pairs in {notes.images} images: {notes.without_proposals} of them have no '
      f'mask as large as config.mining.min_area ({c.min_area}), {len(notes.broken)} '
      f'cannot be read; {len(found)} pairs reached config.mining.min_score '
      f'({c.min_score}), none was left by max_per_noun ({c.max_per_noun}) and '
      f'min_noun_count ({c.min_noun_count}). Train the proposer longer or change the '
      f'settings, and delete {folder}'
    )
  joining.join(
    workdir,
    found,
    keep,
    sheet.datasheet(config, builder, miner, found, keep, notes),
    rule=rule,
    crop_format=c.crop_format,
  )
  joining.clean_up(workdir, seed=config.seed)


def read_captions(path: str) -> dict[str, list[str]]:
  """Reads a file of COCO captions: by the name of the image without its ending.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is something else, or has captions without images.
  """
  file = place(path)
  if not file.is_file():
    raise FileNotFoundError(
      f'{file} not found; config.mining.caption_file names a file such as '
      'annotations/captions_train2017.json'
    )
  try:
    content = json.loads(file.read_text(encoding='utf-8'))
    names = {x['id']: pathlib.PurePath(x['file_name']).stem for x in content['images']}
    captions: dict[str, list[str]] = {name: [] for name in names.values()}
    lost = [x['image_id'] for x in content['annotations'] if x['image_id'] not in names]
    for x in content['annotations']:
      if x['image_id'] in names:
        captions[names[x['image_id']]].append(' '.join(x['caption'].split()))
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{file} is no file of COCO captions ({type(error).__name__}: {error}); expected '
      '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'
    ) from error
  if lost:
    raise UserError(
      f'{file} has {len(lost)} captions without images, such as those of image '
      f'{lost[0]}, which "images" does not list'
    )
  return captions
