"""The rehearsal: every stage of OVSeg's Tables 1 to 3 on drawn files and drawn weights.

The full-size configurations themselves, changed only in what the report lists, which is
found by comparing the settings. The benchmarks' files have their published layouts,
names, sizes and formats, and are read by `ovs_jax.data.prepare`; CLIPs, backbones and
an OVSeg have their published formats, and are converted by `ovs_jax.convert`.
  (nothing)  networks of full size, two steps of each training, a picture a benchmark
  :test      the larger model's stages of Table 1 with the smallest networks (:smoke)
  :tables    the same of all three tables
  :volume    as many photographs and pairs as COCO has, with the smallest networks
`python -m ovs_jax.bench.rehearsal` measures every stage, or kills each of them once.
Expected: no score means anything; what matters is that the last stage is reached.
Hardware: 2 CPU cores, 12 GB, 50 GB of disk; 15 minutes.
Command: launch/run.sh --config=configs/rehearsal.py
"""

import dataclasses
from typing import Any

import ml_collections

from configs import adaptation, common
from ovs_jax.bench.rehearsal_report import RUN, TABLE, stages_of
from ovs_jax.core.lookup import lookup
from ovs_jax.models import clip, maskformer

Config = ml_collections.ConfigDict
TABLES = ('paper_table1', 'paper_table2', 'paper_table3')
# The published backbones, and what the smallest networks have in their place.
_SMALL_BACKBONES = {'swin_base': 'swin_mini', 'r101c': 'r_mini'}
_PRESETS = {'vitl14': ('l14', 'swin_b_l14'), 'vitb16': ('b16', 'r101c_b16')}
_BACKBONES = {'vitl14': 'swin_base', 'vitb16': 'r101c'}
_SMALL_CLIP = {
  'embed_dim': 16,
  'image_size': 16,
  'patch': 8,
  'vision_width': 64,
  'vision_layers': 3,
  'vision_heads': 1,
  'text_width': 64,
  'text_layers': 1,
  'text_heads': 1,
}
_SMALL_PROPOSER = {
  'pixel_width': 32,
  'mask_dim': 16,
  'groups': 32,
  'width': 16,
  'heads': 8,
  'feed_forward': 16,
  'layers': 1,
  'embed_hidden': 16,
  'embed_dim': 16,
}
# Classes of 16 and of 8 bits.
_SMALL_DATA = ('ade20k_847', 'voc_20')
_SISTER = ('vitb16', 'r101c', 'vitb16_mpt_ft')  # ends of its stages' names
_OF_VOLUME = (
  *('files', 'weights_vitl14', 'proposer_swin_b', 'mine_coco_captions_ovseg'),
  *('mine_coco_captions_mine', 'ft_vitl14'),
)
_DATA = (
  *('coco_stuff_171', 'coco_captions_2017', 'ade20k_150', 'ade20k_847'),
  *('pascal_context_59', 'pascal_context_459', 'voc_20'),
)


def get_config(arg: str = '') -> Config:
  """See above; `:structure` is the same as nothing."""
  variants = {'': structure, 'structure': structure, 'volume': volume}
  variants |= {'test': test, 'smoke': test, 'tables': all_tables}
  return lookup(variants, arg, 'word after the colon')()


def structure() -> Config:
  """Networks of full size."""
  return rehearsal('rehearsal', TABLES, small=False)


def test() -> Config:
  """The smallest networks; one table has every kind of stage."""
  return rehearsal('rehearsal_test', TABLES[:1], small=True)


def all_tables() -> Config:
  """The smallest networks, and all three tables."""
  return rehearsal('rehearsal_tables', TABLES, small=True)


def volume() -> Config:
  """As many photographs as COCO has, 64 pixels large, and as many pairs."""
  config = rehearsal('rehearsal_volume', TABLES[:1], small=True)
  with config.unlocked():
    config.order = tuple(x for x in config.order if x in _OF_VOLUME)
    config.stages = {key: config.stages[key] for key in config.order}
    drawn = config.stages.files.rehearsal
    drawn.update(images=118_287, longest=64, scenes=512, datasets=_DATA[:2])
    config.rehearsal.images = drawn.images
    drawn.images = config.rehearsal.get_ref('images')
    mining = config.stages.mine_coco_captions_mine.mining
    # Two captions here have as many nouns as one of COCO.
    mining.update(captions=2, chunk=64, disk_megabytes=0)
    config.optimize_programs = True
    for stage in config.stages.values():
      stage.optimize_programs = True
  return config


def rehearsal(name: str, tables: tuple[str, ...], *, small: bool) -> Config:
  """Returns the pipeline.

  Args:
    name: of the run.
    tables: configurations whose stages it has.
    small: whether the networks are the smallest ones.
  """
  config = common.base(name, 'pipeline')
  full = {key: _cut(stage, small=small) for key, stage in stages_of(tables).items()}
  if small:  # the larger model has every kind of stage; its smaller sister, none more
    full = {key: x for key, x in full.items() if not key.endswith(_SISTER)}
  longest = 96 if small else 0
  stages = {'files': files(images=4, longest=longest)}
  for size in _PRESETS:
    stages[f'weights_{size}'] = weights(size, small=small)
  stages |= full
  stages['report'] = _part('report')
  stages['report'].report.run = RUN.rstrip('/')
  stages['report'].rehearsal.configs = tables
  for key, stage in stages.items():
    stage.seed = config.get_ref('seed')
    stage.optimize_programs = not small
    if key not in full:
      stage.name = key
  config.optimize_programs = not small
  config.stages = ml_collections.ConfigDict(stages)
  config.order = tuple(stages)
  return config.lock()


def _part(part: str) -> Config:
  config = common.base(part, 'rehearse')
  config.rehearsal.part = part
  config.dataset.update(variant='partial', data_dir=f'{RUN}files/data')
  return config


def files(*, images: int, longest: int) -> Config:
  """Draws the benchmarks' files, and prepares what is trained and evaluated on."""
  config = _part('files')
  config.rehearsal.update(images=images, longest=longest, datasets=_DATA)
  return config


def weights(size: str, *, small: bool) -> Config:
  """Draws and converts the published checkpoints of a size."""
  config = _part('weights')
  preset, proposer = _PRESETS[size]
  config.clip = ml_collections.ConfigDict(dataclasses.asdict(clip.PRESETS[preset]))
  config.clip.prompt_depth = adaptation.PROMPT_DEPTH
  sizes = dataclasses.asdict(maskformer.PRESETS[proposer])
  config.proposer = ml_collections.ConfigDict(sizes)
  config.rehearsal.clip = f'{RUN}checkpoints/{adaptation.FOLDERS[size]}'
  config.rehearsal.backbone = f'{RUN}checkpoints/{_BACKBONES[size]}'
  if small:
    _shrink(config)
  return config


def _cut(stage: Config, *, small: bool) -> Config:
  """Returns a full-size stage that takes minutes."""

  def chosen(name: str) -> bool:
    return not small or name in _SMALL_DATA

  stage.unlock()
  _move(stage)
  stage.dataset.update(variant='partial', data_dir=f'{RUN}files/data')
  if stage.mode == 'train':
    stage.train.update(steps=2, epochs=0.0, batch_size=2, log_every=1)
    stage.train.save_every, stage.train.keep = (1 if small else 2), 1
    stage.train.disk_megabytes = min(stage.train.disk_megabytes, 9_000)
    stage.optimizer.warmup = 1
  if stage.recipe == 'proposer':
    stage.proposer.num_queries = 4  # each is a crop of every picture
    # Two crops of 640 pixels take 15 GB.
    stage.train.update(max_targets=4, batch_size=1)
  if stage.mode == 'mine':
    stage.mining.update(chunk=2, disk_megabytes=100)
  if stage.mining.caption_file:
    path = stage.mining.caption_file.removeprefix('~/')
    stage.mining.caption_file = f'{RUN}files/source/{path}'
  if stage.recipe == 'proposer' or stage.mode == 'assemble':
    # Of 847 names and the vild templates the text tower would see 11,858 sentences.
    stage.text.templates = 'single'
  if stage.mode == 'benchmark':
    stage.suite.datasets = tuple(
      f'{x}/partial' for x in stage.suite.datasets if chosen(x)
    )
    # Pictures of a sheet go through the networks once more.
    stage.suite.update(distractors=(10,), bootstrap=10, sheet=int(small))
  if stage.mode == TABLE:
    places = [i for i, x in enumerate(stage.table.columns) if chosen(x)]
    stage.table.columns = tuple(f'{stage.table.columns[i]}/partial' for i in places)
    stage.table.rows = tuple(
      (row, run, tuple(published[i] for i in places))
      for row, run, published in stage.table.rows
      if not (small and _SISTER[0] in run)
    )
  if small:
    _shrink(stage)
  return stage


def _shrink(stage: Config) -> None:
  """The smallest networks, and pictures for them."""
  if stage.recipe == 'clip_regions' or stage.mode == 'rehearse':
    stage.clip.update(_SMALL_CLIP)
  if stage.recipe == 'proposer' or stage.mode == 'rehearse':
    stage.proposer.update(_SMALL_PROPOSER)
    stage.proposer.backbone = _SMALL_BACKBONES[stage.proposer.backbone]
  if stage.recipe == 'proposer':
    stage.train.update(shortest=(48, 64), crop=64)
  if stage.mode == 'assemble':
    stage.test.update(shortest=64, longest=128)
  if stage.mode == 'mine':
    stage.mining.update(shortest=64 if stage.mining.shortest else 0)


def _move(section: Any) -> None:
  """Lets the directories of a configuration be below that of the rehearsal."""
  for key, value in section.items():
    if isinstance(value, ml_collections.ConfigDict):
      _move(value)
    elif isinstance(value, str | tuple):
      section[key] = _moved(value)


def _moved(value: Any) -> Any:
  if isinstance(value, tuple):
    return tuple(_moved(x) for x in value)
  own = isinstance(value, str) and value.startswith(('runs/', 'checkpoints/'))
  return f'{RUN}{value}' if own else value
