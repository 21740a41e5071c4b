"""Mask-noun pairs from COCO Captions: nouns x proposals x CLIP (OVSeg, section 3.3).

Says what it needs, and how to make it, if that is not there. Alone it is case 3 of
Table 2 (nouns of one caption, proposals); after a colon come the other cases:
  :classes         1, true masks with their class names; needs no model
  :truth           2, nouns of one caption, true masks
  :five_captions   4, nouns of five captions, proposals
  :ade_crops       the true masks of ADE20K-150, for init.labelled of a training
For case 2 name the captions: --config.mining.caption_file=captions_train2017.json
Every noun is a name by itself, as in the paper; --config.mining.nouns_as=names makes
compounds of them ("tennis racket"), about a quarter fewer.
Expected: about 440,000 pairs of 12,000 nouns (paper); not measured.
Crops are stored as JPEG, the shorter side at most 336 pixels, which training resizes to
CLIP's 224; --config.mining.crop_format=png --config.mining.crop_shortest=0 keeps all.
Hardware: one or more GPUs; time not measured. Free disk, asked for before the start:
  20 GB (:truth 20, :five_captions 60, :classes 43, :ade_crops 5, without loss); six
  times as much for lossless crops. Memory for the pairs does not grow with them.
Command: launch/run.sh --config=configs/mine_coco_captions.py
"""

import ml_collections

from configs import adaptation, common, scenes

LOSSLESS = {'crop_format': 'png', 'crop_shortest': 0}
CASES = {
  '': {'captions': 1},
  'classes': {'masks': 'truth', 'nouns': 'classes'},
  'truth': {'masks': 'truth', 'captions': 1},
  'five_captions': {'captions': 5},
  'ade_crops': {'masks': 'truth', 'nouns': 'classes', 'split': 'val', **LOSSLESS},
}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  name, size = 'mine_coco_captions', 'vitl14'
  mining = common.base('mine', 'mine')
  mining.mining.update(shortest=640, nouns_as='paper')
  mining.mining.update(crop_format='jpeg', crop_shortest=336)
  mining.mining.update(CASES.get(arg, {}))
  labelled = mining.mining.masks == 'truth'
  mining.dataset.name = 'coco_stuff_171' if labelled else 'coco_captions_2017'
  if labelled:  # one job, without a proposer
    mining.name = f'{name}_{arg}'
    if arg == 'ade_crops':
      mining.dataset.name = 'ade20k_150'
    needs = [('dataset', 'its images and label maps', '')]
    if arg == 'truth':
      mining.mining.checkpoint = 'checkpoints/clip_vit_l14'
      what, command = adaptation.weights(size)[1:]
      needs.append(('mining.checkpoint', what, command))
      file = '~/coco/annotations/captions_train2017.json'
      mining.mining.caption_file = file
      what = 'annotations_trainval2017.zip of cocodataset.org, unpacked'
      needs.append(('mining.caption_file', 'its captions', f'from {what}'))
    mining.needs = tuple(needs)
    return common.finish(mining, arg, applied=CASES)
  frozen = adaptation.frozen(size)
  frozen.needs = (adaptation.weights(size), adaptation.proposer(size))
  mining.needs = (('dataset', 'COCO Captions', ''),)
  if arg == 'smoke':
    frozen.needs = mining.needs = ()
    mining.mining.checkpoint = scenes.in_pipeline('ovseg_frozen/model')
    own = {'ovseg_frozen': adaptation.of_scenes(frozen), 'mine': mining}
    return scenes.pipeline(name, 'mine', arg, own=own)
  mining.mining.checkpoint = '{run}/ovseg/model'
  config = common.base(f'{name}_{arg}' if arg in CASES and arg else name, 'pipeline')
  config.stages = ml_collections.ConfigDict({'ovseg': frozen, 'mine': mining})
  config.order = ('ovseg', 'mine')
  adaptation.share(config, config.stages.mine, 'dataset')
  adaptation.share(config, config.stages.ovseg, 'init')
  config.needs = (*frozen.needs, *mining.needs)
  return common.finish(config, arg, applied=CASES)
