"""Stages that run once in a whole test run, whatever processes share its tests."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from ovs_jax import main
from ovs_jax.core.files import fingerprint, read_json, write_json
from ovs_jax.data.build import locked


def once(
  factory: pytest.TempPathFactory, name: str, make: Callable[[pathlib.Path], Any]
) -> pathlib.Path:
  """Returns a directory that is made once in all processes of a test run.

  Args:
    factory: of temporary directories.
    name: of the directory.
    make: makes it.
  """
  place = shared(factory) / name
  done = place.with_name(f'{name}.done')
  with locked(place.with_name(f'{name}.lock')):
    if not done.exists():
      make(place)
      done.touch()
  return place


def shared(factory: pytest.TempPathFactory) -> pathlib.Path:
  """Returns the temporary directory of all processes of a test run."""
  directory = factory.getbasetemp()
  return directory.parent if 'PYTEST_XDIST_WORKER' in os.environ else directory


class Reuse:
  """Runs stages, but copies one whose settings ran before, here or elsewhere."""

  def __init__(self, directory: pathlib.Path) -> None:
    """Takes a directory that all processes of the test run share."""
    self._run = main.run
    self._directory = directory
    self.ran: list[str] = []

  def __call__(self, mode: str, stage: Any, workdir: pathlib.Path) -> dict[str, Any]:
    place = self._directory / stage_key(stage, workdir)
    made = place / 'made.json'
    with locked(place):
      if mode != 'report' and made.exists():
        found = read_json(made)
        shutil.copytree(found['workdir'], workdir)
        _entitle(workdir, stage.name)
        return found['result']
      self.ran.append(workdir.name)
      result = self._run(mode, stage, workdir)
      write_json(made, {'workdir': str(workdir.absolute()), 'result': result})
      return read_json(made)['result']  # as all others get it


def _entitle(workdir: pathlib.Path, name: str) -> None:
  path = workdir / 'config.json'
  if path.exists():
    write_json(path, {**read_json(path), 'name': name})


def stage_key(stage: Any, workdir: pathlib.Path) -> str:
  """Tells stages apart, but for their titles and the places that they work in."""
  settings = stage.to_dict()
  del settings['name'], settings['dataset']['data_dir']
  text = json.dumps(settings, default=str).replace(str(workdir.parent), '{run}')
  return fingerprint([workdir.name, text])
