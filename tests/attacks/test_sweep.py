"""Every key of every kind of run with strange values: it runs, or a line says why not.

What the ranges of the settings refuse never comes this far (tests/settings). Here are
the values that they let pass, in the stages of two pipelines that have run.
"""

import copy
import dataclasses
import math
import multiprocessing
import os
import pathlib
import resource
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest
from reuse import Reuse, once

from ovs_jax import main
from ovs_jax.bench import drawn
from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import flatten
from ovs_jax.settings import Settings
from ovs_jax.train.pipeline import run_pipeline

VALUES = (0, -1, 10**9, '', 'x', math.nan, 0.5, True, None, 1)
SECONDS = 120  # that one run may take
MEMORY = 10 << 30
LONG = ('train/steps', 'train/epochs')  # 10**9 of them take as long as was asked for
# What a stage reads, and hardly a stage above it in this table.
SECTIONS = {
  'quickstart/clip': (
    *('clip', 'text', 'mesh', 'dataset', 'init', 'train', 'optimizer'),
  ),
  'quickstart/mine': ('mining', 'region', 'init', 'dataset'),
  'quickstart/mpt': ('clip', 'region', 'init'),
  'quickstart/evaluate_mpt': ('eval', 'test', 'region', 'init', 'dataset'),
  'paper_coseg/clipseg': ('clipseg', 'phrases'),
  'paper_coseg/coseg_prefix': ('coseg', 'slots'),
  'paper_coseg/eval_coseg_no_training_standard': ('suite', 'systems', 'test', 'init'),
  'quickstart/report': ('report',),
  'paper_coseg/table': ('table',),
  'quickstart/proposer': ('proposer',),
  'quickstart/ovseg_mpt': ('init', 'test', 'proposer'),
}


def changed(stage: Settings, sections: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
  """Yields keys and strange values that the settings' own ranges let pass."""
  tree = stage.to_dict()
  for path, was in flatten({x: tree[x] for x in sections if x in tree}).items():
    for value in VALUES:
      same = type(value) is type(was) and value == was
      if same or (path in LONG and value == 10**9):
        continue
      try:
        with_value(stage, path, value)
      except UserError:
        continue
      yield path, value


def placed(value: Any, directory: pathlib.Path) -> Any:
  """Returns a tree of settings with a pipeline's directory for `{run}`."""
  if isinstance(value, str):
    return value.replace('{run}', str(directory))
  if isinstance(value, dict):
    return {key: placed(part, directory) for key, part in value.items()}
  if isinstance(value, tuple):
    return tuple(placed(part, directory) for part in value)
  return value


def with_value(stage: Settings, path: str, value: Any) -> Settings:
  tree = copy.deepcopy(stage.to_dict())
  *above, key = path.split('/')
  section = tree
  for name in above:
    section = section[name]
  section[key] = value
  return Settings.of(tree)


def work(pipe: Connection, folder: pathlib.Path) -> None:
  """Runs what comes through a pipe, and answers with what came of it."""
  resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
  # Some values are names of folders, which are made where a run starts.
  sys.path[:] = [os.path.abspath(path) for path in sys.path]
  os.chdir(folder)
  os.setpgrp()
  while True:
    settings, directory = pipe.recv()
    try:
      main.run(settings.mode, settings, directory)
      pipe.send('runs')
    except (UserError, OSError, FloatingPointError) as error:
      lines = str(error).count('\n') + 1
      pipe.send('a line' if lines < 7 else f'{lines} lines: {error}')
    except BaseException as error:  # noqa: BLE001
      pipe.send(f'{type(error).__name__}: {str(error)[:300]}')


class Worker:
  """A process that runs stages, and is replaced by another when it hangs or dies."""

  def __init__(self, folder: pathlib.Path) -> None:
    self._context, self._folder = multiprocessing.get_context('spawn'), folder
    self._start()

  def _start(self) -> None:
    self._pipe, other = self._context.Pipe()
    self._process = self._context.Process(target=work, args=(other, self._folder))
    self._process.start()
    other.close()

  def stop(self) -> None:
    self._process.kill()
    self._process.join()

  def run(self, settings: Settings, directory: pathlib.Path) -> str:
    self._pipe.send((settings, directory))
    try:
      if self._pipe.poll(SECONDS):
        return self._pipe.recv()
      outcome = f'not done after {SECONDS} s'
    except EOFError:
      self._process.join()
      outcome = f'died: {signal.strsignal(-(self._process.exitcode or 0))}'
    self.stop()
    self._start()
    return outcome


@pytest.fixture(scope='module')
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
  made = Worker(tmp_path_factory.mktemp('here'))
  yield made
  made.stop()


@pytest.fixture(scope='module')
def finished(
  data_dir: str, reuse: Reuse, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
  """Returns a directory with two finished pipelines."""

  def make(directory: pathlib.Path) -> None:
    for name in ('quickstart', 'paper_coseg'):
      config = drawn.configuration(name, 'smoke')
      config.dataset.data_dir = data_dir
      run_pipeline(Settings.of(config), directory / name, reuse)

  return once(tmp_path_factory, 'swept', make)


@pytest.mark.slow
@pytest.mark.parametrize('name', SECTIONS)
def test_strange_values_run_or_are_one_line(
  name: str,
  finished: pathlib.Path,
  data_dir: str,
  worker: Worker,
  tmp_path: pathlib.Path,
) -> None:
  pipeline, _, stage_name = name.partition('/')
  config = drawn.configuration(pipeline, 'smoke')
  config.dataset.data_dir = data_dir
  stage = Settings.of(config).stages[stage_name]
  stage = Settings.of(placed(stage.to_dict(), finished / pipeline))
  if stage.mode == 'train':
    stage = dataclasses.replace(
      stage, train=dataclasses.replace(stage.train, steps=1, epochs=0.0)
    )
  outcomes: dict[str, int] = {}
  wrong = []
  for number, (path, value) in enumerate(changed(stage, SECTIONS[name])):
    outcome = worker.run(with_value(stage, path, value), tmp_path / str(number))
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    if outcome not in ('runs', 'a line'):
      wrong.append(f'{path}={value!r}: {outcome}')
      print(wrong[-1], flush=True)
  print(name, outcomes)
  assert wrong == []
