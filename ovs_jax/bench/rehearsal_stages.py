"""What a rehearsal has that no real run has: drawn files, and drawn weights.

Both are in the formats in which the real ones are published, and read by what reads
these: `ovs_jax.data.prepare` and `ovs_jax.convert`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ovs_jax.bench import rehearsal_report
from ovs_jax.bench.drawn import fill
from ovs_jax.convert import SOURCES, exchange
from ovs_jax.core.files import (
  Place,
  atomic_path,
  clear_leftovers,
  local,
  place,
)
from ovs_jax.core.preemption import pause
from ovs_jax.core.types import Params
from ovs_jax.data import prepare
from ovs_jax.data.rehearsal_files import write_layouts
from ovs_jax.data.rehearsal_pictures import Drawer
from ovs_jax.models import backbones
from ovs_jax.models.clip import ClipConfig, init_clip
from ovs_jax.models.maskformer import init_maskformer
from ovs_jax.models.ovseg import OvSegConfig
from ovs_jax.ops.regions import RegionConfig
from ovs_jax.settings import Settings

SOURCE = 'source'  # folder of the files
# The published files of a CLIP, a backbone and an OVSeg, by the kind of backbone.
PUBLISHED = {
  'Swin': (
    'ViT-L-14.pt',
    'swin_base_patch4_window12_384_22k.pth',
    'ovseg_swinbase_vitL14_ft_mpt.pth',
  ),
  'ResNet': ('ViT-B-16.pt', 'R-103.pkl', 'ovseg_R101c_vitB16_ft_mpt.pth'),
}
_LARGER = 'Swin'  # of the two
_LAYOUTS = {'Swin': 'swin', 'ResNet': 'resnet'}  # of backbones
_CONSTANTS = ('input_resolution', 'context_length', 'vocab_size')  # of OpenAI's CLIPs


def rehearse(config: Settings, workdir: Place) -> dict[str, Any]:
  """Runs one part of a rehearsal; see `settings.rehearsal`.

  Raises:
    ValueError: files or weights that cannot be read again.
    OSError: the disk is full or cannot be written.
    Stopped: SIGTERM came; what is whole is kept.
  """
  parts = {
    'files': draw_files,
    'weights': draw_weights,
    'report': rehearsal_report.report,
  }
  return parts[config.rehearsal.part](config, local(workdir))


def draw_files(config: Settings, workdir: Any) -> dict[str, Any]:
  """Writes the benchmarks' files to `workdir/source`, and prepares them."""
  c, source = config.rehearsal, workdir / SOURCE
  if not source.exists():
    clear_leftovers(source)
    drawer = Drawer(config.seed, c.longest, c.scenes)
    with atomic_path(source) as temporary:
      write_layouts(temporary, drawer, images=c.images, val_images=c.val_images)
  counts: dict[str, Any] = {}
  for name in c.datasets:
    pause(f'{len(counts)} of {len(c.datasets)} data sets are prepared')
    data_dir, variant = place(config.dataset.data_dir), config.dataset.variant
    builder = prepare.prepare(name, source, data_dir, variant)
    splits = builder.info.splits.items()
    counts[name] = {split: info.num_examples for split, info in splits}
  return {'examples': counts}


def draw_weights(config: Settings, workdir: Any) -> dict[str, Any]:
  """Draws a CLIP, a backbone and an OVSeg, publishes and converts them.

  Of the CLIP and the backbone the sizes are `config.clip` and `config.proposer`.
  """
  c = config.rehearsal
  sizes = config.proposer.backbone_config()
  kind = backbones.kind(sizes)
  clip = dataclasses.replace(
    config.clip, dtype='float32', remat=False, unroll=1, prompt_depth=0
  )
  drawn = {
    'openai': (_draw_clip, clip),
    _LAYOUTS[kind]: (_draw_backbone, sizes),
    'ovseg': (_draw_ovseg, config),
  }
  folders = (place(c.clip), place(c.backbone), workdir / 'ovseg')
  found = {}
  for (layout, (draw, of)), file, folder in zip(
    drawn.items(), PUBLISHED[kind], folders, strict=True
  ):
    pause(f'{len(found)} of {len(drawn)} checkpoints are converted')
    path = workdir / 'published' / file
    _publish(path, layout, functools.partial(draw, of))
    report = exchange.convert(path, folder, overwrite=True)
    # Comparing takes as long as converting; kinds that a smaller model has wait for it.
    compared = kind != _LARGER or layout == _LAYOUTS[kind]
    if compared:
      report = exchange.check(path, folder)
    found[file] = {'layout': report.family, 'values': report.values}
    found[file]['compared'] = compared
  return {'checkpoints': found}


def _publish(
  path: Any, layout: str, draw: Callable[[], tuple[Params, dict[str, Any]]]
) -> None:
  """Writes drawn parameters in a published format, unless they are there."""
  if path.exists():
    return
  params, model = draw()
  clip = layout == 'openai'
  names = SOURCES[layout].names(model) if clip else []
  record = {
    'family': layout,
    'constants': list(_CONSTANTS) if clip else [],
    'dtypes': {exchange.pattern_of(name): 'float16' for name in names},
  }
  exchange.write(params, {**model, 'source': record}, path, layout=layout)


def _half(params: Params) -> Params:
  """Rounds to what a file of half precision holds."""
  return jax.tree.map(
    lambda x: np.asarray(x, np.float16).astype(np.float32), dict(params)
  )


def _fill_clip(config: ClipConfig) -> Params:
  """Draws all of a CLIP but the temperature, which is OpenAI's."""
  drawn = fill(functools.partial(init_clip, config))
  return {**drawn, 'logit_scale': np.asarray(math.log(100), np.float32)}


def _draw_clip(config: ClipConfig) -> tuple[Params, dict[str, Any]]:
  params = _half(_fill_clip(config))
  return params, {'model': 'clip', 'clip': dataclasses.asdict(config)}


def _draw_backbone(config: backbones.Config) -> tuple[Params, dict[str, Any]]:
  params = fill(functools.partial(backbones.init_backbone, config))
  sizes = dataclasses.asdict(config)
  model = {'model': 'backbone', 'backbone': sizes, 'feature_norms': False}
  return jax.tree.map(np.asarray, params), model


def _draw_ovseg(config: Settings) -> tuple[Params, dict[str, Any]]:
  clip = dataclasses.replace(config.clip, dtype='float32', remat=False, unroll=1)
  proposer = dataclasses.replace(config.proposer, dtype='float32', remat=False)
  params = {
    'proposer': fill(functools.partial(init_maskformer, proposer)),
    'clip': _fill_clip(clip),
  }
  model = OvSegConfig(
    proposer=proposer,
    clip=clip,
    region=RegionConfig(size=clip.image_size, **vars(config.region)),
    chunk=config.test.chunk,
  )
  return jax.tree.map(np.asarray, params), {**model.to_dict(), 'model': 'ovseg'}
