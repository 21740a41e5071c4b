"""Table 2 of OVSeg: what the fine-tuning of ViT-L/14 is trained on.

Proposer, mining, trainings, models and benchmarks, each in the directory that its own
configuration has, so that what is there already is not made again; ends with one table
beside the paper's numbers. Says at once what is missing and how to get it.
Expected: 7.3 to 8.8, 21.8 to 28.8 and 51.4 to 57.3 mIoU on A-847, A-150 and PC-59
  (paper, Table 2); not measured.
Hardware: days of 8 GPUs of 32 GB or more; time not measured. As smoke: 2 CPU cores.
Command: launch/run.sh --config=configs/paper_table2.py
"""

import ml_collections

from configs import ft_vitl14, paper, proposer_swin_b

NAME, TITLE = 'paper_table2', 'OVSeg, Table 2'
COLUMNS = ('ade20k_847', 'ade20k_150', 'pascal_context_59')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `:smoke` joins the benchmark of a tiny model."""
  if arg == 'smoke':
    return paper.smoke(NAME)
  cases = ('classes', 'truth', 'five_captions')
  stages = {
    **paper.training(proposer_swin_b.get_config()),
    **paper.mining(),
    **paper.training(ft_vitl14.get_config()),
    **paper.model('vitl14', 'frozen', datasets=COLUMNS),
    **paper.model('vitl14', 'ft', datasets=COLUMNS),
  }
  for case in cases:
    tower = paper.training(ft_vitl14.get_config(case))
    stages |= paper.mining(case) | tower
    stages |= paper.model('vitl14', 'ft', tower=f'ft_vitl14_{case}', datasets=COLUMNS)
  rows = (
    ('not adapted', 'frozen', (7.3, 21.8, 51.4)),
    ('true masks, their classes', 'classes', (5.3, 23.0, 57.3)),
    ('true masks, nouns of one caption', 'truth', (7.9, 24.2, 53.2)),
    ('proposals, nouns of one caption', 'ft', (8.8, 28.8, 55.7)),
    ('proposals, nouns of five captions', 'five_captions', (8.8, 28.6, 55.5)),
  )
  rows = tuple((name, f'eval_ovseg_vitl14_{run}', x) for name, run, x in rows)
  return paper.table(NAME, TITLE, stages, rows, arg, datasets=COLUMNS)
