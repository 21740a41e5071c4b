"""What the tests share: a stage runs once, wherever it is asked for."""

import math
import pathlib
from typing import Any

import pytest
from reuse import Reuse

from configs import common
from ovs_jax import main
from ovs_jax.core.files import read_json, write_json


def run(mode: str, stage: Any, workdir: pathlib.Path) -> dict[str, Any]:
  """Stands in for the real one, which leaves files and returns numbers."""
  workdir.mkdir(parents=True)
  (workdir / 'seed.txt').write_text(str(stage.seed))
  write_json(workdir / 'config.json', {'name': stage.name, 'seed': stage.seed})
  return {'seed': stage.seed, 'score': math.nan}


def test_a_stage_runs_once_for_all(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(main, 'run', run)
  first, second = (Reuse(tmp_path / 'stages') for _ in range(2))
  stage, titled, other = (common.base(name, 'train') for name in 'aba')
  stage.init.clip, titled.init.clip = (f'{tmp_path}/{run}/clip' for run in 'xy')
  titled.dataset.data_dir = '/elsewhere'
  other.seed = 7
  assert first('train', stage, tmp_path / 'x' / 'mpt') == {'seed': 0, 'score': None}
  assert second('train', titled, tmp_path / 'y' / 'mpt') == {'seed': 0, 'score': None}
  assert second('train', other, tmp_path / 'z' / 'mpt') == {'seed': 7, 'score': None}
  assert (first.ran, second.ran) == (['mpt'], ['mpt'])
  assert (tmp_path / 'y' / 'mpt' / 'seed.txt').read_text() == '0'
  assert read_json(tmp_path / 'y' / 'mpt' / 'config.json') == {'name': 'b', 'seed': 0}
