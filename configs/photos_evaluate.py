"""A checkpoint on your own photographs, with true masks: what `ovs-jax evaluate` runs.

Name the folder in --config.suite.datasets="('folder/DIR:val',)", with any of its
splits; docs/your_own_data.md says what a folder may be. Writes report.md, report.json
and, per data set, per_class.csv, per_image.csv and sheet.png, the best, median and
worst photographs.
Expected: depends on the photographs. Hardware: any; as smoke 2 CPU cores.
Command: launch/run.sh --config=configs/photos_evaluate.py --config.checkpoint=DIR
"""

import ml_collections

from configs import common, scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `:smoke` evaluates a tiny model on drawn scenes."""
  config = common.base('photos_evaluate', 'benchmark')
  config.eval.methods = tuple(
    ml_collections.ConfigDict({'classifier': name, 'weight': 0.0})
    for name in ('proposer', 'clip')
  )
  config.suite.update(
    datasets=('folder/photos:val',), distractors=(), single_concepts=False
  )
  config.systems.labels = 0  # of a CLIPSeg: every name, as it is in `predict`
  if arg != 'smoke':
    return common.finish(config, arg)
  config.eval.checkpoint = scenes.in_pipeline('ovseg_frozen/model')
  config.suite.update(datasets=('scenes/smoke:val',), training='scenes', bootstrap=50)
  own = {'eval_ovseg': config}
  return scenes.pipeline('photos_evaluate', 'eval_ovseg', arg, own=own)
