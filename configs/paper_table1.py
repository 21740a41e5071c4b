"""Table 1 of OVSeg: both sizes on the five benchmarks, fine-tuned and then prompted.

Proposer, mining, trainings, models and benchmarks, each in the directory that its own
configuration has, so that what is there already is not made again; ends with one table
beside the paper's numbers. Says at once what is missing and how to get it.
Expected: 9.0 and 7.1, 12.4 and 11.0, 29.6 and 24.8, 55.7 and 53.3, 94.5 and 92.6 mIoU
  (paper, Table 1); not measured.
Hardware: days of 8 GPUs of 32 GB or more; time not measured. As smoke: 2 CPU cores.
Command: launch/run.sh --config=configs/paper_table1.py
"""

import ml_collections

from configs import (
  ft_vitb16,
  ft_vitl14,
  mpt_ft_vitb16,
  mpt_ft_vitl14,
  paper,
  proposer_r101c,
  proposer_swin_b,
)

NAME, TITLE = 'paper_table1', 'OVSeg, Table 1'


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `:smoke` joins the benchmark of a tiny model."""
  if arg == 'smoke':
    return paper.smoke(NAME)
  from_small = paper.training(ft_vitb16.get_config())
  from_small |= paper.training(mpt_ft_vitb16.get_config())
  stages = {
    **paper.training(proposer_swin_b.get_config()),
    **paper.training(proposer_r101c.get_config()),
    **paper.mining(),
    **from_small,
    **paper.training(ft_vitl14.get_config()),
    **paper.training(mpt_ft_vitl14.get_config()),
    **paper.model('vitb16', 'mpt_ft'),
    **paper.model('vitl14', 'mpt_ft'),
  }
  rows = (
    ('R101c, ViT-B/16', 'eval_ovseg_vitb16_mpt_ft', (7.1, 11.0, 24.8, 53.3, 92.6)),
    ('Swin-B, ViT-L/14', 'eval_ovseg_vitl14_mpt_ft', (9.0, 12.4, 29.6, 55.7, 94.5)),
  )
  note = (
    'The paper has a third row, R101c trained on 156 of the classes: not made here.'
  )
  return paper.table(NAME, TITLE, stages, rows, arg, note=note)
