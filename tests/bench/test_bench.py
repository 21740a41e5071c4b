"""Rates, ratios and reports of `python -m ovs_jax.bench`."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from ovs_jax.bench import WORKLOADS, __main__, input_pipeline, measure
from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.data.pipeline import train_batches


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
  """A clock that tells what is in the list's only element."""
  now = [0.0]
  monkeypatch.setattr(measure.time, 'perf_counter', lambda: now[0])
  return now


def taking(clock: list[float], name: str, seconds: list[float]) -> Variant:
  """A variant whose runs take these seconds."""
  left = iter(seconds)

  def run() -> None:
    clock[0] += next(left)

  return Variant(name, run, flops=300.0)


def test_rows_have_medians_rates_and_ratios(clock: list[float]) -> None:
  variants = [
    taking(clock, 'package', [9.0, 1.0, 3.0, 2.0]),
    taking(clock, 'slow', [9.0, 6.0, 6.0, 7.0]),
  ]
  fast, slow = measure.measure(Workload('crops', 8, variants), repeats=3, peak=600.0)
  assert (fast['seconds'], slow['seconds']) == (2.0, 6.0)
  assert (fast['items_per_second'], slow['items_per_second']) == (4.0, 8 / 6)
  assert (fast['ratio'], slow['ratio']) == (1.0, 3.0)
  assert (fast['spread_seconds'], slow['spread_seconds']) == (2.0, 1.0)
  assert fast['p95_seconds'] == pytest.approx(2.9)
  assert (fast['flops_per_second'], fast['utilisation']) == (150.0, 0.25)


def test_variants_run_in_turns() -> None:
  order: list[str] = []
  variants = [Variant(name, lambda n=name: order.append(n)) for name in 'ab']
  measure.measure(Workload('runs', 1, variants), warmup=2, repeats=2)
  assert ''.join(order) == 'aabb' + 'abab'


@pytest.mark.parametrize(('warmup', 'repeats'), [(1, 0), (-1, 1)])
def test_nothing_to_time_is_refused(warmup: int, repeats: int) -> None:
  with pytest.raises(ValueError, match='at least 1 and 0'):
    measure.measure(Workload('runs', 1, []), warmup=warmup, repeats=repeats)


def test_a_product_is_counted_by_formula_and_by_xla() -> None:
  x = jnp.ones((32, 64))
  program = measure.compile_program(jax.jit(lambda x: x @ x.T), x)
  variant = Variant('product', lambda: program(x), program=program)
  (row,) = measure.measure(Workload('products', 1, [variant]), repeats=1)
  assert row['flops_by_xla'] == pytest.approx(2 * 32 * 64 * 32, rel=0.05)
  assert row['program_bytes'] >= 4 * (32 * 64 + 32 * 32)
  assert row['flops'] == 2 * 32 * 64 * 32
  assert row['utilisation'] is None  # of an unknown peak


def test_a_loop_counts_as_often_as_it_runs() -> None:
  x = jnp.ones((16, 16))
  loop = jax.jit(lambda x: jax.lax.scan(lambda y, _: (y @ x, None), x, length=5)[0])
  program = measure.compile_program(loop, x)
  variant = Variant('loop', lambda: program(x), program=program)
  rows = measure.measure(Workload('loops', 1, [variant]), repeats=1, peak=1e9)
  assert rows[0]['flops'] == 5 * 2 * 16**3
  assert rows[0]['utilisation'] == rows[0]['flops'] / rows[0]['seconds'] / 1e9


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of each type."""

  preset: str = 'tiny'
  batch: int = 2
  share: float = 0.5
  exact: bool = True
  mesh: tuple[int, ...] = (1, 1)


def test_settings_take_the_type_of_the_default() -> None:
  settings = ['preset=b16', 'batch=3', 'share=1', 'exact=false', 'mesh=4,2']
  expected = Options('b16', 3, 1.0, False, (4, 2))
  assert __main__.parse_options(Options, settings) == expected
  assert __main__.parse_options(Options, []) == Options()


@pytest.mark.parametrize(
  ('setting', 'message'),
  [
    ('batch', 'expected --set=KEY=VALUE'),
    ('bach=3', "Did you mean 'batch'"),
    ('batch=many', "batch='many' is not of type int"),
    ('exact=yes', "exact='yes' is not of type bool"),
    ('mesh=4x2', "mesh='4x2' is not of type numbers with commas"),
  ],
)
def test_unfit_settings_are_explained(setting: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    __main__.parse_options(Options, [setting])


@pytest.mark.parametrize(
  ('flags', 'settings'),
  [
    ([], []),
    (['--mesh=4,2', '--batch=8'], ['mesh=4,2', 'batch=8']),
    (['--devices=8'], ['mesh=8,1']),
    (['--devices=8', '--mesh=2,4'], ['mesh=2,4']),
  ],
)
def test_flags_are_settings(flags: list[str], settings: list[str]) -> None:
  arguments = __main__.parser().parse_args(['--workload=clip_crops', *flags])
  assert __main__.flag_settings(arguments, Options) == settings


def test_command_measures_keeps_and_compares(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
  output = tmp_path / 'report.json'
  arguments = ['--workload=clip_crops', '--set=preset=tiny', '--repeats=1']
  assert __main__.main([*arguments, f'--output={output}']) == 0
  report = json.loads(output.read_text())
  assert report['options']['preset'] == 'tiny' and report['unit'] == 'crops'
  assert '| package |' in capsys.readouterr().out
  assert __main__.main([*arguments, f'--compare={output}']) == 0
  assert f'times the rate of {report["date"]}' in capsys.readouterr().out


def test_reports_of_the_same_workload_are_compared() -> None:
  row = {'variant': 'package', 'items_per_second': 6.0}
  earlier = {
    'workload': 'fusion',
    'options': {'batch': 1},
    'variants': [row | {'items_per_second': 4.0}],
    'date': '2026-01-01',
  }
  report = {'workload': 'fusion', 'options': {'batch': 2}, 'variants': [row]}
  assert __main__.compare(report, earlier).splitlines() == [
    'package: 1.50 times the rate of 2026-01-01',
    'batch was 1, is 2',
  ]
  with pytest.raises(ValueError, match='of the same workload'):
    __main__.compare(report | {'workload': 'clip_crops'}, earlier)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--workload=clip_crop'], "Did you mean 'clip_crops'"),
    (['--workload=clip_crops', '--set=preset=b61'], "Did you mean 'b16'"),
    (
      ['--workload=clip_crops', '--set=preset=tiny', '--variants=pakage'],
      "Did you mean 'package'",
    ),
    (['--workload=fusion', '--batch=2'], "no option 'batch'; leave --batch out"),
    (['--workload=clip_crops', '--mesh=4,2'], "no option 'mesh'; leave --mesh out"),
    (['--workload=metrics', '--devices=8'], "no option 'mesh'; leave --devices out"),
    (['--workload=clip_crops', '--dtype=bfloat'], "Did you mean 'bfloat16'"),
    (['--workload=clip_adapt_step', '--devices=4'], '4 devices were asked for and'),
    (['--workload=clip_adapt_step', '--devices=0'], 'expected at least 1'),
  ],
)
def test_mistakes_are_one_line(
  arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
  assert __main__.main(arguments) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


def test_every_workload_has_options_with_defaults() -> None:
  for name in WORKLOADS.values():
    module = __import__(name, fromlist=['build'])
    assert module.Options() == module.Options()
    assert module.build.__doc__ and module.__doc__


@pytest.mark.parametrize('name', ['regions', 'proposer', 'clip', 'clipseg', 'coseg'])
def test_pipelines_yield_what_recipes_read(name: str, tmp_path: pathlib.Path) -> None:
  pipeline = input_pipeline.PIPELINES[name]
  make = (
    input_pipeline.make_crops if pipeline.cropped else input_pipeline.make_photographs
  )
  builder, split = make(tmp_path, 2)
  steps = pipeline.transforms(40)
  batch = next(train_batches(builder, split, steps, batch_size=2, seed=0, start=0))
  expected = {
    'regions': {'image': (2, 40, 40, 3), 'mask': (2, 40, 40), 'noun': (2,)},
    'proposer': {
      'image': (2, 40, 40, 3),
      'label': (2, 40, 40),
      'ids': (2, 40),
      'valid': (2, 40),
    },
    'clip': {'image': (2, 40, 40, 3), 'text': (2,)},
    'clipseg': {'image': (2, 40, 40, 3), 'label': (2, 40, 40)},
    'coseg': {'image': (2, 40, 40, 3), 'label': (2, 40, 40)},
  }[name]
  assert {key: x.shape for key, x in batch.items()} == expected


def test_input_pipelines_are_measured(capsys: pytest.CaptureFixture) -> None:
  arguments = ['--workload=input_pipeline', '--repeats=1', '--warmup=0']
  arguments += [f'--set={x}' for x in ('size=16', 'batch=2', 'batches=1', 'images=4')]
  assert __main__.main(arguments) == 0
  text = capsys.readouterr().out
  assert '| decoding alone |' in text and 'cores that feed 1,000 images/s: ' in text


def test_counting_is_measured(capsys: pytest.CaptureFixture) -> None:
  arguments = ['--workload=metrics', '--repeats=1', '--warmup=0']
  arguments += [f'--set={x}' for x in ('classes=9', 'height=30', 'width=40')]
  assert __main__.main(arguments) == 0
  text = capsys.readouterr().out
  assert 'device and host agree: True' in text and '| label map |' in text
