"""Mining goes on where a file of its directory is damaged: as ever, or one line."""

import pathlib
import shutil
import sys
from typing import Any

import numpy as np
import pytest
from test_damaged_data import damages

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'mining'))

import test_run

from ovs_jax.core.errors import UserError
from ovs_jax.mining import candidates, run
from ovs_jax.settings import Settings

checkpoint, config = test_run.checkpoint, test_run.config  # fixtures


def pairs_of(directory: pathlib.Path) -> list[Any]:
  return [
    (p['image_id'], p['noun'], p['box'].tolist()) for p in test_run.read(directory)
  ]


@pytest.mark.parametrize(
  ('every', 'finished'),
  [
    (20, False),
    (10, True),
    *(pytest.param(1, x, marks=pytest.mark.slow) for x in (False, True)),
  ],
)
def test_any_file_of_mining(
  every: int,
  finished: bool,
  config: Any,
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  settings = Settings.of(config)
  run.mine(settings, tmp_path / 'expected')
  expected = pairs_of(tmp_path / 'expected')
  calls = []

  def count(*args: Any) -> Any:
    calls.append(1)
    if len(calls) == 20 and not finished:
      raise test_run.Killed
    return test_run.propose(*args)

  work, whole = tmp_path / 'work', tmp_path / 'whole'
  with monkeypatch.context() as patch:
    patch.setattr(candidates, 'propose_masks', count)
    try:
      run.mine(settings, work)
    except test_run.Killed:
      assert not finished
  shutil.copytree(work, whole)
  refused = 0
  files = [p for p in work.rglob('*') if p.is_file() and p.stat().st_size]
  assert len(files) > 2
  for i, path in enumerate(sorted(files)):
    name = path.relative_to(work)
    found = [*damages(path.read_bytes(), path.suffix == '.json')]
    for content in found[i % every :: every]:
      path.write_bytes(content)
      try:
        run.mine(settings, work)
        assert pairs_of(work) == expected, (name, content[:200])
      except (UserError, OSError) as error:
        assert str(work) in str(error) and len(str(error).splitlines()) == 1, (
          name,
          str(error),
        )
        refused += 1
      shutil.rmtree(work)
      shutil.copytree(whole, work)
  assert refused >= 1
  np.testing.assert_equal(pairs_of(work) if finished else expected, expected)
