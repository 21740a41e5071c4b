"""An OVSeg checkpoint on the five benchmarks of the paper, in one go.

Reproduces: table 1 of OVSeg, in one frozen setting (the checkpoint's own) and, as a
second column, with the paper's lambda for each benchmark. Writes report.md and
report.json; per data set per_class.csv, per_image.csv, confusion.npz and sheet.png.
Expected: the released Swin-B is published with 9.0, 12.4, 29.6, 55.7 and 94.5 mIoU
(detectron2 0.6) in the order below; here not measured. Data: see docs/datasets.md.
Hardware: one GPU with 16 GB; time not measured. As smoke: 2 CPU cores.
Command: launch/run.sh --config=configs/eval_ovseg.py --config.checkpoint=DIR
"""

import ml_collections

from configs import common, scenes

# Section 4 and the reference's command lines: chosen on the test images.
TUNED = (
  ('ade20k_847', 0.7),
  ('pascal_context_459', 0.6),
  ('ade20k_150', 0.7),
  ('pascal_context_59', 0.6),
  ('voc_20', 0.45),
)


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `:smoke` trains a tiny model and evaluates it on scenes."""
  config = common.base('eval_ovseg', 'benchmark')
  config.eval.methods = tuple(
    ml_collections.ConfigDict({'classifier': name, 'weight': 0.0})
    for name in ('proposer', 'clip')
  )
  config.eval.no_score = 'first'  # as the numbers of the paper were counted
  config.suite.datasets = tuple(name for name, _ in TUNED)
  config.suite.tuned = TUNED
  if arg != 'smoke':
    return common.finish(config, arg)
  config.eval.checkpoint = '{run}/ovseg_frozen/model'
  config.suite.update(
    datasets=('scenes/smoke:val',),
    tuned=(('scenes', 0.3),),
    training='scenes',
    distractors=(10,),
    distractor_images=4,
    bootstrap=50,
    sheet=1,
  )
  return scenes.pipeline(config.name, 'eval_ovseg', arg, own={'eval_ovseg': config})
