"""What a work directory belongs to: one configuration, and what that was given.

`config.json` there has the configuration of the last start, and `sources.json` hashes
of what the first one read: checkpoints, pairs, tables, data sets. Both are compared at
every start. Where things are does not count, so that runs can be moved and copied. To
hash a checkpoint it is read whole: what was found is remembered for files of the same
names, sizes and times.
"""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from ovs_jax.core import checkpoint, content, hosts
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, below, place, read_json, read_mapping, write_json
from ovs_jax.core.limits import Located, places
from ovs_jax.settings import Settings, bound
from ovs_jax.train.needs import datasets_of

_CONFIG, _SOURCES = 'config.json', 'sources.json'
# Files of runs that say how and when, not what.
_REMEMBERED = '.hashes.json'
_NOTES = (_CONFIG, _SOURCES, _REMEMBERED, 'done.json', 'metrics.jsonl')


# Modes whose results are made anew where others would have to be deleted by hand.
_ANEW = (
  'evaluate',
  'benchmark',
  'evaluate_systems',
  'report',
  'table',
  'choose',
  'replicate',
)


def claim(config: Settings, workdir: Place) -> bool:
  """Claims `workdir` for a configuration and for what it reads.

  A directory without results is free.

  Returns:
    Whether results that are there are of what is read now. If not, they will be made
    anew (and it says so); the first process knows.

  Raises:
    ValueError: it belongs to another configuration, which differs in more than what may
      change (see `settings.bound`), or was begun with other contents; names the keys.
  """
  own = config.to_json()
  path = workdir / _CONFIG
  names = [p.name for p in workdir.iterdir()]
  free = all(name in (_CONFIG, _SOURCES) or name.startswith('.') for name in names)
  before = read_mapping(path) if path.exists() and not free else None
  if before is not None:
    _check_config(before, own, workdir)
  # Other processes may have no such files; they are told where the first one fails.
  if not hosts.primary():
    return True
  if free:  # a start that was refused, or stopped before it had anything
    (workdir / _SOURCES).unlink(missing_ok=True)
  same = _check_sources(config, workdir)
  if before != own:
    write_json(path, own)
  return same


def _check_config(
  before: Mapping[str, Any], own: Mapping[str, Any], workdir: Place
) -> None:
  theirs, ours = bound(before), bound(own)
  defaults = bound(Settings(name='any', mode='train').to_json())
  keys = [k for k in {**theirs, **ours} if theirs.get(k) != ours.get(k)]
  # Those that an earlier version did not have are as they were.
  keys = [
    k
    for k in keys
    if k in theirs or ours[k] != defaults.get(re.sub('^stages/[^/]+/', '', k))
  ]
  if keys:
    shown = ', '.join(
      f'{k.replace("/", ".")} ({theirs.get(k)!r} there, {ours.get(k)!r} now)'
      for k in keys[:6]
    )
    more = f' and {len(keys) - 6} more' if len(keys) > 6 else ''
    raise UserError(
      f'{workdir} belongs to a run of another configuration; different: {shown}'
      f'{more}. Give another --workdir=, or delete the directory'
    )


def sources(
  config: Settings, remembered: MutableMapping[str, str] | None = None
) -> dict[str, str]:
  """Returns hashes of what a job reads and is there, by the keys that name it.

  Args:
    config: of the job.
    remembered: hashes of checkpoints, by that of the names, sizes and times of their
      files; those that are not among them are added.
  """
  remembered = {} if remembered is None else remembered
  found: dict[str, str] = {}

  def look(key: str, kind: Located, path: str) -> str:
    if path and kind.read and not key.startswith('stages.'):
      where = place(path)
      if where.exists():
        found[key] = _identity(where, remembered)
    return path

  places(Settings, config.to_dict(), look)
  for key, builder in datasets_of(config):
    found[key] = content.identity(place(builder.data_dir))
  return found


def _identity(path: Place, remembered: MutableMapping[str, str]) -> str:
  try:
    model = checkpoint.resolve(path)
  except (UserError, OSError):
    return content.identity(path, without=_NOTES)
  if not isinstance(model, pathlib.Path):
    return checkpoint.identity(path)
  times = [(name, n, (model / name).stat().st_mtime_ns) for name, n in below(model)]
  as_written = hashlib.sha256(json.dumps(times).encode()).hexdigest()
  if as_written not in remembered:
    remembered[as_written] = checkpoint.identity(path)
  return remembered[as_written]


def _recall(path: Place) -> dict[str, str]:
  """Reads what was remembered; of a damaged file, nothing: it is found out again."""
  try:
    found = read_json(path)
    return {str(k): str(v) for k, v in found.items()}
  except (OSError, ValueError, AttributeError):
    return {}


def _check_sources(config: Settings, workdir: Place) -> bool:
  path = workdir / _SOURCES
  before = read_mapping(path) if path.exists() else {}
  known = _recall(workdir / _REMEMBERED)
  remembered = dict(known)
  now = sources(config, remembered)
  if remembered != known:
    write_json(workdir / _REMEMBERED, remembered)
  changed = [key for key in before if before[key] != now.get(key, before[key])]
  if changed:
    keys = ', '.join(f'config.{key}' for key in changed)
    was = f'{workdir} was made of what {keys} named before, which has changed since'
    if config.mode not in _ANEW:
      raise UserError(
        f'{was}; delete that directory to make it again, or give another --workdir='
      )
    print(f'note: {was}; it is made anew', flush=True)
    counted = [p for p in workdir.glob('**/counted_*_of_*.npz')]
    for result in (*workdir.glob('*/done.json'), *counted):
      result.unlink()
  if not before or changed or now.keys() - before.keys():
    write_json(path, {**before, **now})
  return not changed
