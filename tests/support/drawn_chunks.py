"""Chunks of a mining job, written as mining does, without any network."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovs_jax.core.types import Bool
from ovs_jax.mining import chunks, joining, table

RULE = {'max_per_noun': 0, 'min_noun_count': 0}
Row = tuple[str, str, float]  # noun, image, score


def pair(number: int, row: Row, *, side: int = 3) -> dict[str, Any]:
  """Returns a pair as the miner gives it, with a crop of noise."""
  noun, image_id, score = row
  pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3))
  return {
    'image': pixels.astype(np.uint8),
    'mask': np.full((side, side, 1), 255, np.uint8),
    'noun': noun,
    'image_id': image_id,
    'caption': 0,
    'proposal': number,
    'box': np.array([0, 0, side, side], np.int32),
    'score': score,
    'cosine': score / 2,
    'area': side * side,
  }


def write(
  folder: pathlib.Path, parts: Sequence[Sequence[Row]], *, side: int = 3
) -> None:
  """Writes a chunk of each of the parts; pairs are numbered through."""
  number = 0
  for i, part in enumerate(parts):
    found = []
    for row in part:
      drawn = pair(number, row, side=side)
      found.append(chunks.store(drawn, shortest=0, crop_format='png'))
      number += 1
    notes = chunks.Notes(images=2, captions=2)
    chunks.write_chunk(folder, i, found, notes)


def join(
  workdir: Any, count: int, *, rule: dict[str, int] | None = None, left: Any = ()
) -> Bool[np.ndarray, 'n']:
  """Joins chunks without the pairs `left`; returns which stayed."""
  found, notes = table.read(workdir / 'chunks', count)
  keep = table.select(
    found.noun,
    found.score,
    most=(rule or RULE)['max_per_noun'],
    least=(rule or RULE)['min_noun_count'],
  )
  keep[list(left)] = False
  sheet = {'pairs': int(keep.sum()), 'images': notes.images}
  joining.join(workdir, found, keep, sheet, rule=rule or RULE, crop_format='png')
  return keep
