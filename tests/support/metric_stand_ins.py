"""Modules in place of clu and wandb, which keep what the real ones would be told."""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

CLU = """
import json, pathlib
class Writer:
  def __init__(self, logdir):
    self.path = pathlib.Path(logdir, 'clu.jsonl')
    self.path.parent.mkdir(exist_ok=True)
    self.lines = []
  def write_scalars(self, step, scalars):
    self.lines.append(json.dumps([step, scalars]))
  def flush(self):
    with self.path.open('a') as file:
      file.writelines(f'{line}\\n' for line in self.lines)
    self.lines = []
  close = flush
def create_default_writer(logdir):
  return Writer(logdir)
"""
# Like the real one it keeps nothing of a step that is not after the last.
WANDB = """
import json, pathlib
class Run:
  def __init__(self, path, settings):
    self.path, self.told = path, []
    if not path.exists():
      path.write_text(json.dumps(['init', settings]) + chr(10))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    self.last = max([step for step, _ in lines if step != 'init'], default=0)
  def log(self, metrics, step):
    if step > self.last:
      self.last = step
      self.told.append(json.dumps([step, metrics]))
  def finish(self):
    with self.path.open('a') as file:
      file.writelines(line + chr(10) for line in self.told)
    self.told = []
def init(id, resume, name, config, dir):
  assert resume == 'allow'
  settings = {'name': name, 'config': config}
  return Run(pathlib.Path(dir, f'wandb_run_{id}.jsonl'), settings)
"""


def install(directory: pathlib.Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
  """Puts a `clu` and a `wandb` on the path, before real ones."""
  (directory / 'clu').mkdir()
  (directory / 'clu/__init__.py').touch()
  (directory / 'clu/metric_writers.py').write_text(CLU)
  (directory / 'wandb.py').write_text(WANDB)
  patch.syspath_prepend(str(directory))
  forget()
  yield
  forget()


def forget() -> None:
  """Drops the imported modules."""
  for name in [n for n in sys.modules if n.split('.')[0] in ('clu', 'wandb')]:
    del sys.modules[name]


def read(directory: pathlib.Path, pattern: str) -> list[Any]:
  """Returns the lines of one file."""
  (path,) = directory.glob(pattern)
  return [json.loads(line) for line in path.read_text().splitlines()]
