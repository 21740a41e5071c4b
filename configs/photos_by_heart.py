"""A small Swin MaskFormer learns thirteen photographs by heart.

Shows that the recipe of the full models learns real label maps, where a GPU and the
118,000 photographs of COCO-Stuff are not at hand: training, then evaluation on the same
photographs. Any part of COCO-Stuff's training photographs with their label maps does:

    python -m ovs_jax.data.prepare --dataset=coco_stuff_171 --allow_partial --source=DIR

`DIR/coco` has the published layout (docs/datasets.md). Needs runs/quickstart/clip (or
--config.stages.proposer.init.clip=DIR and --config.stages.ovseg.init.clip=DIR).
Expected: 94 % of the pixels right (docs/results.md). Hardware: 2 cores, 3 GB, 12 min.
Command: launch/run.sh --config=configs/photos_by_heart.py
"""

import ml_collections

from configs import common, scenes

_CLIP = 'runs/quickstart/clip'


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  if arg == 'smoke':
    return scenes.pipeline(
      'photos_by_heart',
      'proposer',
      arg,
      own={'proposer': _training(scenes.in_pipeline('clip'))},
      needs=('clip',),
    )
  config = common.base('photos_by_heart', 'pipeline')
  config.dataset.name = 'coco_stuff_171'
  config.dataset.variant = 'partial'
  ovseg = scenes.assemble('{run}/proposer', _CLIP, prompt_depth=0)
  ovseg.test.classifier = 'proposer'
  ovseg.test.shortest = 192
  evaluation = scenes.benchmark('{run}/ovseg/model')
  evaluation.eval.methods = ()
  evaluation.suite.update(
    datasets=('coco_stuff_171/partial:train',),
    training='coco_stuff_171',
    distractors=(),
    single_concepts=False,
    bootstrap=0,
  )
  stages = {'proposer': _training(_CLIP), 'ovseg': ovseg, 'evaluate': evaluation}
  for name, stage in stages.items():
    stage.name = name
    stage.seed = config.get_ref('seed')
    stage.text.templates = 'single'
    common.follow(stage, config)
  config.order = tuple(stages)
  config.stages = ml_collections.ConfigDict(stages)
  return common.finish(config, arg)


def _training(clip: str) -> ml_collections.ConfigDict:
  """Every step sees all photographs; nothing is there to keep it from overfitting."""
  config = scenes.proposer_training(clip)
  config.train.paste_scenes = 0
  config.optimizer.muon = ()  # Swin's layers are stacked: no matrices
  config.optimizer.learning_rate = 1e-3
  config.optimizer.gradient_clip = 1.0
  config.proposer.backbone = 'swin_micro'
  config.proposer.num_queries = 24
  config.proposer.layers = 2
  config.train.classes = 'all'
  config.train.steps = 600
  config.train.save_every = 200
  config.train.batch_size = 13
  config.train.max_targets = 16
  # No crop is padded: grey that is always there would be learned, too.
  config.train.shortest = (192,)
  config.train.crop = 192
  return config
