"""What a run leaves to read: JSON lines, and events for TensorBoard."""

import json
import math
import pathlib

import pytest

from ovs_jax.core import writers
from ovs_jax.core.runlog import RunLog, progress


def open_log(directory: pathlib.Path, *, start: int = 0) -> RunLog:
  return RunLog(directory, title='test', start=start, steps=9, batch_size=4)


def read(directory: pathlib.Path) -> list[dict[str, float]]:
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def record(log: RunLog, *steps: int) -> None:
  for step in steps:
    log.advance(step)
    log.write(step, {'loss': step / 3})
  log.close()


def test_a_line_per_step(tmp_path: pathlib.Path) -> None:
  record(open_log(tmp_path), 1, 2)
  assert [(x['step'], x['loss']) for x in read(tmp_path)] == [
    (1, 0.333333),
    (2, 0.666667),
  ]
  assert all(x['images_per_second'] > 0 for x in read(tmp_path))


def test_steps_after_the_checkpoint_are_dropped(tmp_path: pathlib.Path) -> None:
  record(open_log(tmp_path), 1, 2, 3)
  record(open_log(tmp_path, start=2), 3, 4)
  assert [x['step'] for x in read(tmp_path)] == [1, 2, 3, 4]


def test_half_a_line_is_dropped(tmp_path: pathlib.Path) -> None:
  record(open_log(tmp_path), 1, 2)
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 3, "lo')  # and then the process was killed
  record(open_log(tmp_path, start=2), 3)
  assert [x['step'] for x in read(tmp_path)] == [1, 2, 3]


def test_damaged_lines_lose_no_others(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  lines = [json.dumps({'step': step, 'loss': 0.5}) for step in range(1, 5)]
  damaged = ['\x00\x00', lines[0], '7', lines[1], '{"step": "x"}', *lines[2:], '{"st']
  (tmp_path / 'metrics.jsonl').write_bytes('\n'.join(damaged).encode() + b'\xff')
  record(open_log(tmp_path, start=3))
  assert (tmp_path / 'metrics.jsonl').read_text().splitlines() == lines[:3]
  said = capsys.readouterr().err
  assert [f'line {n} of' in said for n in (1, 3, 5, 8)] == [True, True, True, False]


def test_a_loss_that_is_not_finite_is_written(tmp_path: pathlib.Path) -> None:
  log = open_log(tmp_path)
  log.write(1, {'loss': math.nan})
  log.close()
  assert read(tmp_path)[0]['loss'] is None  # JSON has no NaN


def test_tensorboard_gets_every_metric(tmp_path: pathlib.Path) -> None:
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  record(open_log(tmp_path), 1, 2)
  events = EventAccumulator(str(tmp_path / 'tensorboard'))
  events.Reload()
  assert events.Tags()['scalars'] == ['loss']
  assert [x.step for x in events.Scalars('loss')] == [1, 2]
  assert events.Scalars('loss')[1].value == pytest.approx(2 / 3)


def test_tensorboard_is_optional(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(writers.importlib.util, 'find_spec', lambda name: None)
  record(open_log(tmp_path), 1)
  assert [p.name for p in tmp_path.iterdir()] == ['metrics.jsonl']


def test_progress_yields_its_items(capsys: pytest.CaptureFixture[str]) -> None:
  assert list(progress('abc', total=3, title='letters')) == ['a', 'b', 'c']
  assert 'letters' in capsys.readouterr().err
