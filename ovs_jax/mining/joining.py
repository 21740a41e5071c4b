"""From the chunks of a mining job to its data set, in steps that a kill cannot spoil.

A file of which all pairs stay is given its final name; one of which some stay is copied
without the others, and then removed; the datasheet comes last, and the chunks go when
the summary is there. What was done is seen from what lies there, so that a job that was
killed anywhere goes on, and ends with the same bytes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  below,
  clear_leftovers,
  clear_temporaries,
  move,
  read_json,
  remove,
  write_json,
)
from ovs_jax.core.preemption import pause
from ovs_jax.core.types import Bool
from ovs_jax.data import pairs
from ovs_jax.data.frames import copy_records, file_size
from ovs_jax.mining import chunks, sheet
from ovs_jax.mining.table import Table

_BEGUN = 'joining.json'  # beside the chunks: the rule by which pairs are left out
_CHUNKS, _PAIRS = 'chunks', 'pairs'  # folders


def has_begun(folder: Place) -> bool:
  """Returns whether all chunks were mined, and some of them may be gone by now."""
  return (folder / _BEGUN).is_file()


def join(
  workdir: Place,
  table: Table,
  keep: Bool[np.ndarray, 'n'],
  found: Mapping[str, Any],
  *,
  rule: Mapping[str, Any],
  crop_format: str,
) -> None:
  """Makes the data set `workdir/pairs` of the chunks, or goes on with that.

  Args:
    workdir: with the folder `chunks`.
    table: of all pairs.
    keep: which of them stay; at least one.
    found: the datasheet, as JSON.
    rule: what `keep` follows from, as JSON.
    crop_format: of the crops.

  Raises:
    Stopped: SIGTERM came; the next start goes on.
    ValueError: pairs have been left out by another rule; or a file is damaged, or gone.
  """
  folder, target = workdir / _CHUNKS, workdir / _PAIRS
  _begin(folder, target, dict(rule))
  count = len(table.starts) - 1
  kept = [keep[table.chunk(i)] for i in range(count)]
  used = [i for i in range(count) if kept[i].any()]
  paths = {i: pairs.file_path(target, k, len(used)) for k, i in enumerate(used)}
  final = paths[used[0]].parent
  for directory in (target, final):
    clear_temporaries(directory)
  sources, done = dict(below(folder)), dict(below(final))
  for i in range(count):
    pause(f'all {count} chunks are mined; {i} of them are in the data set')
    lengths = table.length[table.chunk(i)]
    path = chunks.records_path(folder, i)
    if i in paths and done.get(paths[i].name) != file_size(lengths[kept[i]]):
      _check_size(path, sources.get(path.name), file_size(lengths))
      if kept[i].all():
        move(path, paths[i])
        continue
      copy_records(path, paths[i], kept[i])
    if path.name in sources:
      remove(path)
  pairs.describe(
    target,
    [int(kept[i].sum()) for i in used],
    int(table.length[keep].sum(dtype=np.int64)),
    (table.names[k] for k in table.noun[keep]),
    found,
    crop_format=crop_format,
  )


def _begin(folder: Place, target: Place, rule: dict[str, Any]) -> None:
  """Notes the rule before the first pair is left out."""
  note = folder / _BEGUN
  if not note.is_file():
    clear_leftovers(target)
    remove(target)
    write_json(note, rule)
  elif (before := read_json(note)) != rule:
    raise UserError(
      f'the pairs of {folder.parent} are being chosen by {before}, now {rule} is asked '
      f'for; ask for the same, or delete {folder} to mine all images anew'
    )


def _check_size(path: Place, size: int | None, expected: int) -> None:
  if size != expected:
    raise UserError(
      f'{path} has {size or 0} bytes, expected {expected}: it is damaged or gone; '
      f'delete {path.parent} to mine all images anew'
    )


def clean_up(workdir: Place, *, seed: int) -> None:
  """Writes the summary of a data set that is there, and removes its chunks.

  Does what is left to do of that, which may be nothing.

  Args:
    workdir: with the folder `pairs`.
    seed: of the choice of the pairs that the summary shows.
  """
  if not sheet.is_summarised(workdir):
    sheet.write_summary(workdir, pairs.datasheet(workdir / _PAIRS), seed=seed)
  remove(workdir / _CHUNKS)
