"""The tables of OVSeg as pipelines: every training, every model, every benchmark.

Each training, mining and assembling has the directory that its own configuration has
(`place`), so that the tables share them, and what was run by itself counts. A stage
that has finished is skipped, an interrupted one goes on.
"""

from collections.abc import Mapping, Sequence

import ml_collections

from configs import adaptation, common, eval_ovseg, mine_coco_captions, scenes

Config = ml_collections.ConfigDict
DATASETS = tuple(name for name, _ in eval_ovseg.TUNED)


def training(config: Config) -> dict[str, Config]:
  """The stage that a configuration is, where it is run by itself."""
  config.unlock()
  config.place = f'runs/{config.name}'
  return {config.name: config}


def mining(case: str = '') -> dict[str, Config]:
  """The stages of configs/mine_coco_captions.py for a case of Table 2."""
  config = mine_coco_captions.get_config(case)
  if config.mode != 'pipeline':
    return training(config)
  run = f'runs/{config.name}'
  stages = {f'{config.name}_{name}': config.stages[name] for name in config.order}
  for name, stage in zip(config.order, stages.values(), strict=True):
    stage.unlock()
    stage.place = f'{run}/{name}'
    stage.mining.checkpoint = stage.mining.checkpoint.replace('{run}', run)
  return stages


def model(
  size: str, arg: str, *, tower: str = '', datasets: Sequence[str] = DATASETS
) -> dict[str, Config]:
  """The stages that assemble an OVSeg and evaluate it.

  Args:
    size: of its CLIP.
    arg: how that was adapted, of `adaptation.METHODS`.
    tower: run of the fine-tuned tower; '': the plain one.
    datasets: that it is evaluated on.
  """
  config = adaptation.assembled(f'ovseg_{size}', size, arg)
  config.unlock()
  if tower:
    config.name = tower.replace('ft_', 'ovseg_', 1)
    config.init.clip = f'runs/{tower}'
  config.place = f'runs/{config.name}'
  evaluation = eval_ovseg.get_config()
  evaluation.unlock()
  evaluation.name = f'eval_{config.name}'
  evaluation.place = f'runs/{evaluation.name}'
  evaluation.eval.checkpoint = f'{config.place}/model'
  evaluation.suite.datasets = tuple(datasets)
  evaluation.needs = (('suite.datasets', 'a benchmark', ''),)
  return {config.name: config, evaluation.name: evaluation}


def table(
  name: str,
  title: str,
  stages: Mapping[str, Config],
  rows: Sequence[tuple[str, str, tuple[float | None, ...]]],
  arg: str,
  *,
  datasets: Sequence[str] = DATASETS,
  note: str = '',
) -> Config:
  """Returns the pipeline whose last stage joins the benchmarks.

  Args:
    name: of the run.
    title: of the table.
    stages: by name, in their order.
    rows: name of a method, stage of its benchmark, and the paper's numbers.
    arg: see `common.finish`.
    datasets: the columns.
    note: what is to be said below.
  """
  config = common.base(name, 'pipeline')
  joined = common.base('table', 'table')
  joined.table.update(title=title, note=note, columns=tuple(datasets))
  joined.table.rows = tuple(
    (row, stages[stage].place, published) for row, stage, published in rows
  )
  config.stages = ml_collections.ConfigDict({**stages, 'table': joined})
  config.order = (*stages, 'table')
  for stage in config.stages.values():
    stage.seed = config.get_ref('seed')
    stage.dataset.data_dir = config.dataset.get_ref('data_dir')
    for field in config.mesh:
      stage.mesh[field] = config.mesh.get_ref(field)
  config.needs = _needs(stages)
  return common.finish(config, arg)


def _needs(stages: Mapping[str, Config]) -> tuple[tuple[str, str, str], ...]:
  """What no stage makes, each once, with the key of the first that needs it."""
  made = tuple(stage.place for stage in stages.values())
  found: dict[object, tuple[str, str, str]] = {}
  for name, stage in stages.items():
    for key, what, command in stage.needs:
      if key == 'dataset':
        value: object = (stage.dataset.name, stage.dataset.variant)
      else:
        section, _, field = key.partition('.')
        value = stage[section][field]
      if isinstance(value, str) and value.startswith(made):
        continue
      found.setdefault(value, (f'stages.{name}.{key}', what, command))
  return tuple(found.values())


def smoke(name: str) -> Config:
  """The tiny pipeline that ends in a table of two models."""
  joined = common.base('table', 'table')
  joined.table.update(title='Drawn scenes', columns=('scenes/smoke:val',))
  joined.table.rows = (('without mask prompts', '{run}/eval_ovseg', ()),)
  evaluation = eval_ovseg.get_config('smoke').stages.eval_ovseg
  evaluation.unlock()
  own = {'eval_ovseg': evaluation, 'table': joined}
  return scenes.pipeline(name, 'table', 'smoke', own=own, needs=('eval_ovseg',))
