"""What mined data are: a datasheet for programs, a summary with pictures for people."""

import collections
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw

import ovs_jax
from ovs_jax.core.checkpoint import resolve
from ovs_jax.core.files import (
  Place,
  atomic_path,
  below,
  clear_leftovers,
  place,
  write_text,
)
from ovs_jax.core.types import Bool
from ovs_jax.data import pairs
from ovs_jax.data.records import decode_example, encoded_examples
from ovs_jax.data.shards import Shards
from ovs_jax.mining.chunks import Notes
from ovs_jax.mining.miner import Miner
from ovs_jax.mining.table import Table
from ovs_jax.settings import Settings

_SUMMARY, _PICTURE = 'summary.md', 'summary.png'  # the first comes last
_TOP = 50
_LISTED = 100  # broken images in the datasheet
_COLUMNS, _ROWS, _SIDE, _LINE = 6, 4, 144, 16


def datasheet(
  config: Settings,
  builder: Any,
  miner: Miner,
  table: Table,
  keep: Bool[np.ndarray, 'n'],
  notes: Notes,
) -> dict[str, Any]:
  """Returns counts, the most frequent nouns, histograms, settings and sources.

  Args:
    config: of the job.
    builder: of the images.
    miner: that found the pairs.
    table: of all pairs.
    keep: which of them stay; at least one.
    notes: of all images.
  """
  c = config.mining
  per_noun, per_image = (np.bincount(x[keep]) for x in (table.noun, table.image))
  nouns = {table.names[i]: int(per_noun[i]) for i in np.flatnonzero(per_noun)}
  with_pairs = per_image[per_image > 0].tolist()
  checkpoint = None
  if miner.described is not None:
    checkpoint = {'path': str(c.checkpoint), 'sha256': _digest(resolve(c.checkpoint))}
  return {
    'pairs': int(keep.sum()),
    'unique_nouns': len(nouns),
    'images': notes.images,
    'images_with_pairs': len(with_pairs),
    'captions': notes.captions,
    'captions_per_image': c.captions,
    'left_out': {
      'pairs_by_noun_counts': int((~keep).sum()),
      'images_without_captions': notes.without_captions,
      'images_without_nouns': notes.without_nouns,
      'images_without_proposals': notes.without_proposals,
      'broken_images': len(notes.broken),
      'broken': notes.broken[:_LISTED],
    },
    'median_area': float(np.median(table.area[keep])),
    'top_nouns': dict(sorted(nouns.items(), key=lambda x: (-x[1], x[0]))[:_TOP]),
    'nouns_by_count': _doubling(nouns.values()),
    'images_by_pairs': _doubling(with_pairs),
    'min_area': c.min_area,
    'min_score': c.min_score,
    'nouns': miner.backend,
    'template': config.text.train_template,
    'settings': {k: _plain(v) for k, v in vars(c).items() if k != 'checkpoint'},
    'source': f'{builder.info.full_name}:{c.split}',
    'source_sha256': _digest(place(builder.data_dir)),
    'checkpoint': checkpoint,
    'made_with': {'ovs_jax': ovs_jax.__version__, 'jax': jax.__version__},
  }


def _plain(value: Any) -> Any:
  return list(value) if isinstance(value, tuple) else value


def _doubling(values: Any) -> dict[str, int]:
  """Counts values in 1, 2-3, 4-7, 8-15 ..."""
  bins = collections.Counter(int(value).bit_length() - 1 for value in values)
  last = max(bins, default=-1)
  return {f'{2**i}-{2 ** (i + 1) - 1}': bins[i] for i in range(last + 1)}


def _digest(folder: Place) -> str:
  """A hash of all files below a folder: their names, sizes and, if small, contents.

  Data sets and weights of many gigabytes are told apart by their descriptions and the
  sizes of their files; reading them again would take as long as using them.
  """
  digest = hashlib.sha256()
  for name, size in below(folder):
    digest.update(f'{name} {size}\n'.encode())
    if size < 2**24:
      digest.update((folder / name).read_bytes())
  return digest.hexdigest()


def is_summarised(workdir: Place) -> bool:
  """Returns whether `write_summary` came to its end."""
  return (workdir / _SUMMARY).is_file()


def write_summary(workdir: Place, found: Mapping[str, Any], *, seed: int) -> None:
  """Writes `summary.png`, a few random pairs, and `summary.md` beside the pairs.

  Args:
    workdir: with the folder `pairs`, of which the files with those few are read.
    found: the datasheet.
    seed: of the choice.
  """
  for name in (_SUMMARY, _PICTURE):
    clear_leftovers(workdir / name)
  total = found['pairs']
  shown = min(_COLUMNS * _ROWS, total)
  chosen = np.random.default_rng(seed).choice(total, shown, replace=False)
  picture = Image.new(
    'RGB', (_COLUMNS * _SIDE, -(-shown // _COLUMNS) * (_SIDE + _LINE)), 'white'
  )
  split = '+'.join(f'train[{i}:{i + 1}]' for i in np.sort(chosen))
  shards = Shards([pairs.load(workdir / 'pairs')], split)
  for k, record in enumerate(encoded_examples(shards, np.arange(shown))):
    y, x = divmod(k, _COLUMNS)
    _draw(picture, decode_example(shards, record), x * _SIDE, y * (_SIDE + _LINE))
  with atomic_path(workdir / _PICTURE) as temporary:
    picture.save(temporary)
  write_text(workdir / _SUMMARY, _text(found))


def _draw(picture: Image.Image, pair: Mapping[str, Any], x: int, y: int) -> None:
  """Puts a crop, darker outside its mask, and its noun at a place of the picture."""
  shown = np.where(pair['mask'][..., None] > 0, pair['image'], pair['image'] // 4)
  crop = Image.fromarray(shown.astype(np.uint8))
  scale = (_SIDE - 4) / max(crop.size)
  crop = crop.resize([max(round(side * scale), 1) for side in crop.size])
  picture.paste(crop, (x + 2, y + 2))
  line = f'{pair["noun"].decode("utf-8")} {float(pair["score"]):.2f}'
  ImageDraw.Draw(picture).text((x + 2, y + _SIDE), line, fill='black')


def _text(found: Mapping[str, Any]) -> str:
  left = {k: v for k, v in found['left_out'].items() if k != 'broken'}
  lines = [
    '# Mined pairs',
    '',
    f'{found["pairs"]:,} pairs of {found["unique_nouns"]:,} nouns in '
    f'{found["images_with_pairs"]:,} of {found["images"]:,} images '
    f'({found["source"]}).',
    '',
    '![random pairs: noun and score](summary.png)',
    '',
    f'Nouns by {found["nouns"]["backend"]} {found["nouns"]["version"]}.',
    '',
    '| left out | count |',
    '|---|---|',
    *(f'| {key.replace("_", " ")} | {value:,} |' for key, value in left.items()),
    '',
    '| pairs of a noun | nouns |',
    '|---|---|',
    *(f'| {key} | {value:,} |' for key, value in found['nouns_by_count'].items()),
    '',
    '| most frequent | pairs |',
    '|---|---|',
    *(f'| {noun} | {count:,} |' for noun, count in found['top_nouns'].items()),
  ]
  if found['left_out']['broken']:
    lines += ['', '## Images that cannot be read', '']
    lines += [f'- {image}: {why}' for image, why in found['left_out']['broken']]
  return '\n'.join(lines) + '\n'
