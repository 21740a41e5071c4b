"""The mining job: captions + proposals + CLIP -> mask-noun pairs.

Images are worked off in chunks, which hosts take in turns; they need one directory that
all of them see. Each finished chunk is one file; a killed job goes on with the chunks
that are missing, and the data set is written when all are there.
"""

import collections
import functools
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ovs_jax.core import hosts
from ovs_jax.core.checkpoint import version
from ovs_jax.core.counts import check_counts
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  check_writable,
  clear_leftovers,
  place,
  read_json,
  remove,
  write_json,
)
from ovs_jax.core.preemption import apart, pause
from ovs_jax.core.runlog import progress
from ovs_jax.core.workers import Workers
from ovs_jax.data import load_dataset, pairs
from ovs_jax.data.records import decode_example, encoded_examples
from ovs_jax.data.shards import Shards
from ovs_jax.mining import chunks, sheet
from ovs_jax.mining.candidates import check_sources
from ovs_jax.mining.chunks import Notes, Pair
from ovs_jax.mining.miner import Miner, Started, finish

_MODEL = 'model.json'  # what chunks were mined with, beside them
_EARLY = 64  # captions without any noun after which something must be wrong


def mine(config: Any, workdir: Place) -> dict[str, Any]:
  """Mines `config.mining.split` of the data set into `workdir/pairs`.

  Returns:
    The datasheet: counts, the most frequent nouns, settings, sources, noun backend.

  Raises:
    FileNotFoundError, ValueError: no checkpoint, or of another model; settings that the
      data set cannot serve; or no nouns, proposals or pairs.
    OSError: `workdir` cannot be written.
    Stopped: SIGTERM came; the chunks that are there will not be mined again.
  """
  began = time.time()
  c = config.mining
  check_counts(config, {'mining.chunk': 1})
  workdir = check_writable(workdir, megabytes=c.disk_megabytes)
  _, builder = load_dataset(config.dataset)
  check_sources(c, list(builder.info.features))
  if pairs.is_written(workdir / 'pairs'):
    found = pairs.datasheet(workdir / 'pairs')
    return {**found, 'seconds': round(time.time() - began, 1)}
  captions = read_captions(c.caption_file) if c.caption_file else None
  shards = Shards([builder], c.split)
  folder = workdir / 'chunks'
  folder.mkdir(parents=True, exist_ok=True)
  count = -(-len(shards) // c.chunk)
  with Workers() as workers:
    miner = Miner(config, captions, workers=workers)
    if miner.described is not None:
      _check_model(folder, c.checkpoint)
    with apart(f'the chunks of {config.name}'):
      _mine_chunks(config, shards, miner, folder, count)
  with apart(f'writing the pairs of {config.name}'):
    if _place()[0] == 0:
      _finish(config, builder, miner, workdir, count)
  found = pairs.datasheet(workdir / 'pairs')
  return {**found, 'seconds': round(time.time() - began, 1)}


def _check_model(folder: Place, checkpoint: str) -> None:
  """Refuses chunks of a model that has been written anew since.

  Raises:
    ValueError: there are some.
  """
  note, now = folder / _MODEL, version(checkpoint)
  if note.is_file():
    if (before := read_json(note)) != now:
      raise UserError(
        f'the chunks in {folder} were mined with {before}, the checkpoint now is '
        f'{now}; delete that directory to mine all images anew'
      )
  elif hosts.primary():
    write_json(note, now)


def _mine_chunks(
  config: Any, shards: Shards, miner: Miner, folder: Place, count: int
) -> None:
  """Mines this host's chunks that are not there."""
  host, hosts_in_all = _place()
  paths = {i: chunks.chunk_path(folder, i) for i in range(host, count, hosts_in_all)}
  missing = [i for i, path in paths.items() if not path.exists()]
  mined = _mined(config, shards, miner, missing)
  seen = Notes()
  title = f'{config.name}: mine'
  for i, found, notes in progress(mined, total=len(missing), title=title):
    seen.add(notes)
    _check_nouns(seen, miner, early=True)
    chunks.write_chunk(paths[i], found, notes)
    pause(f'{sum(p.exists() for p in paths.values())} of {len(paths)} chunks are mined')


def _mined(
  config: Any, shards: Shards, miner: Miner, indices: Sequence[int]
) -> Iterator[tuple[int, list[Pair], Notes]]:
  """Yields chunks in order; the next one is under way while one is waited for."""
  running: collections.deque[tuple[int, Started]] = collections.deque()
  for i in indices:
    first = i * config.mining.chunk
    last = min(first + config.mining.chunk, len(shards))
    started = miner.start(
      list(encoded_examples(shards, np.arange(first, last))),
      before=functools.partial(decode_example, shards),
      after=chunks.compress,
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
  config: Any, builder: Any, miner: Miner, workdir: Place, count: int
) -> None:
  """Writes the data set, its datasheet and its summary from all chunks."""
  c = config.mining
  folder = workdir / 'chunks'
  notes = Notes()
  table: list[Pair] = []
  for rows, part in chunks.read_tables(folder, count):
    table += rows
    notes.add(part)
  _check_nouns(notes, miner, early=False)
  keep = select(table, most=c.max_per_noun, least=c.min_noun_count)
  if not any(keep):
    raise UserError(
      f'no pairs in {notes.images} images: {notes.without_proposals} of them have no '
      f'mask as large as config.mining.min_area ({c.min_area}), {len(notes.broken)} '
      f'cannot be read; {len(table)} pairs reached config.mining.min_score '
      f'({c.min_score}), none was left by max_per_noun ({c.max_per_noun}) and '
      f'min_noun_count ({c.min_noun_count}). Train the proposer longer or change the '
      f'settings, and delete {folder}'
    )
  kept = [row for row, use in zip(table, keep, strict=True) if use]
  found = sheet.datasheet(
    config, builder, miner, kept, notes, left_out=keep.count(False)
  )
  clear_leftovers(workdir / 'pairs')
  pairs.write(workdir / 'pairs', chunks.read_pairs(folder, count, keep), found)
  sheet.write_summary(workdir, found, seed=config.seed)
  remove(folder)


def select(table: Sequence[Mapping[str, Any]], *, most: int, least: int) -> list[bool]:
  """Returns which pairs stay.

  Args:
    table: pairs with `noun` and `score`.
    most: pairs of a noun that stay, those with the highest scores, the first of equal
      ones; 0: all.
    least: pairs that a noun must have to stay at all; counted before.
  """
  rows: dict[str, list[int]] = collections.defaultdict(list)
  for i, pair in enumerate(table):
    rows[pair['noun']].append(i)
  keep = [False] * len(table)
  for indices in rows.values():
    if len(indices) >= least:
      best = sorted(indices, key=lambda i: (-table[i]['score'], i))
      for i in best[: most or None]:
        keep[i] = True
  return keep


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
