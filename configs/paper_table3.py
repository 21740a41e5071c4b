"""Table 3 of OVSeg: mask prompts, fine-tuning, and both, of ViT-L/14.

Proposer, mining, trainings, models and benchmarks, each in the directory that its own
configuration has, so that what is there already is not made again; ends with one table
beside the paper's numbers. The last row's model is Table 1's, and is evaluated on its
five data sets. Says at once what is missing and how to get it.
Expected: 7.3 to 9.0, 21.8 to 29.6 and 51.4 to 55.7 mIoU on A-847, A-150 and PC-59
  (paper, Table 3); not measured.
Hardware: days of 8 GPUs of 32 GB or more; time not measured. As smoke: 2 CPU cores.
Command: launch/run.sh --config=configs/paper_table3.py
"""

import ml_collections

from configs import (
  adaptation,
  ft_vitl14,
  mpt_ft_vitl14,
  mpt_vitl14,
  paper,
  proposer_swin_b,
)

NAME, TITLE = 'paper_table3', 'OVSeg, Table 3'
COLUMNS = ('ade20k_847', 'ade20k_150', 'pascal_context_59')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `:smoke` joins the benchmark of a tiny model."""
  if arg == 'smoke':
    return paper.smoke(NAME)
  stages = {
    **paper.training(proposer_swin_b.get_config()),
    **paper.mining(),
    **paper.training(mpt_vitl14.get_config()),
    **paper.training(ft_vitl14.get_config()),
    **paper.training(mpt_ft_vitl14.get_config()),
  }
  for method in adaptation.METHODS:
    # Table 1 has the last one's benchmark, too, and more data sets.
    datasets = paper.DATASETS if method == 'mpt_ft' else COLUMNS
    stages |= paper.model('vitl14', method, datasets=datasets)
  rows = (
    ('not adapted', 'frozen', (7.3, 21.8, 51.4)),
    ('mask prompts', 'mpt', (8.4, 26.5, 55.4)),
    ('fine-tuning', 'ft', (8.8, 28.8, 55.7)),
    ('fine-tuning, then mask prompts', 'mpt_ft', (9.0, 29.6, 55.7)),
  )
  rows = tuple((name, f'eval_ovseg_vitl14_{run}', x) for name, run, x in rows)
  return paper.table(NAME, TITLE, stages, rows, arg, datasets=COLUMNS)
