"""Stages in order: finished ones are skipped, an interrupted one goes on.

A stage is a configuration of its own, run in `workdir/<stage>`; when it has finished,
`done.json` there holds its result.
"""

import dataclasses
import functools
import operator
import time
from collections.abc import Callable, Iterable
from typing import Any

from ml_collections import ConfigDict

from ovs_jax.core import hosts
from ovs_jax.core.devices import give_back_memory
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, place, read_mapping, write_json
from ovs_jax.settings import Settings
from ovs_jax.train.ownership import claim

Run = Callable[[str, Settings, Place], dict[str, Any]]
_DONE = 'done.json'
_MUCH = 1 / 3  # of a machine's memory; most stages fit beside that
_RECORD = {'result': None, 'seconds': (int, float)}  # what is in it
# What a pipeline reads itself, or gives its stages by way of a sum.
_OWN = ('name', 'mode', 'order', 'optimize_programs', 'seed')


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
    ValueError: a finished stage was made with another configuration, or of other things
      than are there now.
    Stopped: `run` was; the stages before are finished.
  """
  results: dict[str, Any] = {}
  for number, name in enumerate(config.order, start=1):
    stage = _placed(config.stages[name], workdir)
    title = f'[{number}/{len(config.order)}] {name}'
    directory = place(stage.place or workdir / name)
    done = workdir / name / _DONE
    # A stage also depends on what stages before it left, wherever those were made.
    if done.exists() and _is_of_now(stage, directory):
      results[name] = read_mapping(done, **_RECORD)
      print(f'{title}: finished earlier, skipped', flush=True)
      continue
    give_back_memory(_MUCH)  # trainings do so again before their first step
    print(f'{title} ({stage.mode})', flush=True)
    began = time.time()
    result = run(stage.mode, stage, directory)
    if hosts.primary():
      # A resumed stage counts the time of its last run only, and says so by itself.
      seconds = round(time.time() - began, 1)
      write_json(done, {'result': result, 'seconds': seconds})
    hosts.barrier(f'after {name}')
    results[name] = read_mapping(done, **_RECORD)
    print(f'{title}: {results[name]["seconds"]:.0f} s', flush=True)
  return results


def _is_of_now(stage: Settings, directory: Place) -> bool:
  """Whether a finished stage was made of what is there now, on all processes.

  It is not if its directory is gone: deleting that is how to make it again.
  """
  gone = hosts.primary() and not directory.is_dir()
  same = not gone and claim(stage, directory)
  return all(hosts.exchange(f'sources of {stage.name}', 'same' if same else ''))


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
