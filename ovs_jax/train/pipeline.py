"""Stages in order: finished ones are skipped, an interrupted one goes on.

A stage is a configuration of its own, run in `workdir/<stage>`; when it has finished,
`done.json` there holds its result and the fingerprint of its configuration.
"""

import dataclasses
import functools
import operator
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ovs_jax.core import hosts
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, fingerprint, place, read_json, write_json
from ovs_jax.core.tree import flatten
from ovs_jax.settings import Settings

Run = Callable[[str, Settings, Place], dict[str, Any]]
_DONE = 'done.json'
# What a pipeline reads itself, or gives its stages by way of a sum.
_OWN = ('name', 'mode', 'order', 'optimize_programs', 'seed')
# What may change between starts: how a run is done and watched, not what comes out.
_FREE = re.compile(
  r'(^|/)(place|mesh/(data|model|fsdp)|(train|mining|eval)/(skip_not_finite|save_every|keep'
  r'|log_every|writers|profile|disk_megabytes))$'
)


def run_pipeline(config: Settings, workdir: Place, run: Run) -> dict[str, Any]:
  """Runs `config.stages` in the order of `config.order`.

  In a stage's configuration `{run}` stands for `workdir`. A stage with a `place` of its
  own is run there, where other pipelines, or it alone, may have begun it.

  Args:
    config: of a pipeline.
    workdir: holds a directory for each stage.
    run: from (mode, stage configuration, stage directory) to the stage's result; all
      processes call it, and it begins when all have.

  Returns:
    The results of all stages by name.

  Raises:
    ValueError: a finished stage belongs to another configuration.
    Stopped: `run` was; the stages before are finished.
  """
  results: dict[str, Any] = {}
  for number, name in enumerate(config.order, start=1):
    stage = _placed(config.stages[name], workdir)
    title = f'[{number}/{len(config.order)}] {name}'
    # A stage also depends on what the stages before it were.
    before = [results[n]['identity'] for n in results]
    identity = fingerprint([_bound(stage.to_dict()), before])
    done = workdir / name / _DONE
    if done.exists():
      results[name] = read_json(done)
      if results[name]['identity'] != identity:
        raise UserError(
          f'{done.parent} was made with another configuration; give another '
          '--workdir=, or delete that directory to make it again'
        )
      print(f'{title}: finished earlier, skipped', flush=True)
      continue
    print(f'{title} ({stage.mode})', flush=True)
    began = time.time()
    result = run(stage.mode, stage, place(stage.place or workdir / name))
    if hosts.primary():
      # A resumed stage counts the time of its last run only, and says so by itself.
      seconds = round(time.time() - began, 1)
      write_json(done, {'result': result, 'seconds': seconds, 'identity': identity})
    hosts.barrier(f'after {name}')
    results[name] = read_json(done)
    print(f'{title}: {results[name]["seconds"]:.0f} s', flush=True)
  return results


def check_changes(config: ConfigDict, changed: Iterable[str]) -> None:
  """Refuses changed settings that no stage of a pipeline has.

  Args:
    config: the whole configuration; without stages it has what it reads.
    changed: paths of its keys, such as 'train.steps'.

  Raises:
    ValueError: a stage has the key of its own; says how to change it there.
  """
  stages = config.stages if 'stages' in config else {}
  for path in changed:
    if not stages or path in _OWN or path.startswith('stages.'):
      continue
    own = _reference(config, path)
    if not any(_reference(stage, path) is own for stage in stages.values()):
      raise UserError(
        f'config.{path} changes no stage of the pipeline {config.name}; change that of '
        f'one, such as --config.stages.{config.order[-1]}.{path}='
      )


def _reference(config: ConfigDict, path: str) -> Any:
  """What two configurations share where a change of one is one of the other."""
  *sections, key = path.split('.')
  return functools.reduce(operator.getitem, sections, config).get_ref(key)


def check_owner(config: Mapping[str, Any], workdir: Place) -> None:
  """Claims `workdir` for a configuration, of which config.json has the last.

  Raises:
    ValueError: it belongs to another one, which differs in more than what may change
      (`_FREE`); names the keys that differ.
  """
  path = workdir / 'config.json'
  before = read_json(path) if path.exists() else None
  if before is not None:
    theirs, ours = _bound(before), _bound(config)
    keys = [k for k in {**theirs, **ours} if theirs.get(k) != ours.get(k)]
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
  if before != config:
    write_json(path, config)


def _bound(config: Mapping[str, Any]) -> dict[str, Any]:
  """The settings, by path, on which what is in a directory depends."""
  return {k: v for k, v in flatten(config).items() if not _FREE.search(k)}


def _placed(value: Any, workdir: Place) -> Any:
  """Returns a stage's settings, or a part of them, with `{run}` filled in."""
  if isinstance(value, str):
    return value.replace('{run}', str(workdir))
  if isinstance(value, tuple):
    return tuple(_placed(x, workdir) for x in value)
  if not dataclasses.is_dataclass(value):
    return value
  parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
  return dataclasses.replace(
    value, **{k: _placed(x, workdir) for k, x in parts.items()}
  )
