"""Every key that a configuration can have, declared once with its default.

A configuration file calls `base(name, mode)`, changes keys, and returns
`finish(config, arg)`, where `arg` is what follows the colon in `--config=FILE:arg`:
nothing, or `smoke` for the tiny model on a handful of embedded pictures.
"""

import dataclasses
import difflib

import ml_collections

from ovs_jax.models import clip, clipseg_decoder, coseg, maskformer
from ovs_jax.ops.losses import SET_WEIGHTS

# Parameters that AdamW does not decay: norms, biases, one-dimensional embeddings.
NO_DECAY = r'(bias|scale|class_embedding|logit_scale|mask_prompt)$'


def base(name: str, mode: str) -> ml_collections.ConfigDict:
  """Returns all keys with their defaults; results go to runs/<name>."""
  config = ml_collections.ConfigDict()
  config.name = name
  config.mode = mode  # a job of ovs_jax.main
  config.recipe = ''  # what `train` trains; see ovs_jax.train.recipes
  config.seed = 0  # of parameters, shuffling and augmentation
  config.optimize_programs = True  # False compiles sooner and runs slower
  config.mesh = _section(
    data=-1,  # devices along the batch; -1: all
    model=1,  # devices along heads and hidden units
  )
  config.dataset = _section(
    name='scenes',  # see ovs_jax.data.DATASETS
    variant='default',  # its TFDS configuration; of 'folder', the directory
    data_dir='~/.cache/ovs_jax/data',  # where TFDS keeps it
  )
  config.clip = _section(**dataclasses.asdict(clip.PRESETS['tiny']))
  config.proposer = _section(**dataclasses.asdict(maskformer.PRESETS['tiny']))
  config.coseg = _section(**coseg.tiny('prefix').to_dict())  # its CLIP: config.clip
  del config.coseg['clip']
  config.slots = _slots()
  config.clipseg = _section(
    decoder=dataclasses.asdict(clipseg_decoder.tiny('rd64_refined')),
    image_size=128,  # pictures are squashed to this side
    chunk=32,  # prompts decoded at once
  )
  config.phrases = _phrases()
  config.region = _section(
    threshold=0.4,  # a pixel is foreground above this probability
    fill='mean',  # background of crops: mean | zero | none
    expand=1.0,  # factor on the box
    matting=False,  # blend with the soft mask
  )
  config.text = _section(
    templates='vild',  # prompts of class names; see ovs_jax.text.templates
    train_template='single',  # the sentence around a mined noun
  )
  config.init = _section(
    clip='',  # checkpoint to start from, or whose text tower names the classes
    proposer='',  # proposer to assemble, or whose training goes on from this one
    backbone='',  # checkpoint whose backbone the proposer's training starts from
    clipseg='',  # CLIPSeg whose decoder to go on with; '' draws one beside init.clip
    pairs='',  # mined data set
  )
  config.train = _train()
  config.optimizer = _optimizer()
  config.mining = _mining()
  config.test = _test()
  config.eval = _eval()
  config.report = _section(
    frozen='',  # directory of the evaluation of the un-adapted CLIP
    adapted='',  # and of the adapted one
    method='ensemble_0.70',  # whose label maps are shown
    run='',  # of the pipeline, whose stages are timed
  )
  return config


def _section(**keys: object) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(keys)


def _train() -> ml_collections.ConfigDict:
  return _section(
    steps=1000,
    batch_size=64,  # of all devices and hosts together
    split='train',
    min_crop=0.9,  # random crops keep at least this share of each side
    text_length=24,  # tokens per caption; longer ones are cut
    max_targets=12,  # masks per image for the proposer
    classes='seen',  # of the proposer: all | seen (held-out ones become void)
    shortest=(),  # sides that the proposer's images are resized to; none: as they are
    longest=2560,  # and what their longer side is at most
    crop=0,  # side of the proposer's crops, padded where images are smaller; 0: none
    colour=False,  # whether the proposer's images are distorted in colour
    set_weights=_section(**SET_WEIGHTS),  # of the proposer's losses: ce, mask, dice
    keep=2,  # checkpoints kept
    log_every=20,
    save_every=250,
    disk_megabytes=500,  # that must be free before training starts
  )


def _slots() -> ml_collections.ConfigDict:
  return _section(
    template='a photo of a {}',  # text of a slot's label, and of "unlabeled"
    flip=False,  # the paper mentions no augmentation
    matching='area',  # of slots to masks: area (sorted) | hungarian
    match_costs=(1.0, 1.0, 1.0),  # 1 - cosine, cross entropy, dice in hungarian
    unmatched=0.1,  # weight of slots that hungarian leaves over
    language_loss='sequence',  # sequence (among an image's labels) | vocabulary
    tau=0.08,  # temperature of the language loss; CLIP's own is 0.01
    duplicates='literal',  # equal labels of an image: literal | dedup | mask_pads
    direction='pred2gt',  # what is contrasted: pred2gt | gt2pred | both
    ignore_unlabeled=False,  # pixels without a label are negatives in every mask
    forced=0.0,  # share of slots decoded from the text of their label
    weights=_section(  # of the losses; language is the paper's lambda
      bce=1.0, dice=0.0, focal=0.0, language=0.08, area=0.0
    ),
  )


def _phrases() -> ml_collections.ConfigDict:
  return _section(
    templates=(  # one is drawn for each image and step; CLIPSeg's
      'a photo of a {}.',
      'a photograph of a {}.',
      'an image of a {}.',
      '{}.',
      'a cropped photo of a {}.',
      'a good photo of a {}.',
      'a photo of one {}.',
      'a bad photo of a {}.',
      'a photo of the {}.',
    ),
    negative=0.2,  # share of examples whose phrase is not in the image
    weights=_section(bce=1.0, dice=0.0, focal=0.0),
  )


def _optimizer() -> ml_collections.ConfigDict:
  return _section(
    schedule='warmup_cosine',  # see ovs_jax.core.schedule
    learning_rate=1e-3,
    warmup=50,  # steps
    end=0.0,  # last learning rate, as a share of the first
    power=0.9,  # of the polynomial schedule
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    gradient_clip=ml_collections.config_dict.placeholder(float),  # global norm
    groups=((r'.*', 1.0),),  # (path pattern, learning-rate scale or None to freeze)
    decay=((NO_DECAY, 0.0), (r'.*', 1.0)),  # (path pattern, share of weight_decay)
  )


def _mining() -> ml_collections.ConfigDict:
  return _section(
    checkpoint='',  # an OVSeg with the un-adapted CLIP
    split='train',
    captions=1,  # used per image (the paper: 1 is better than 5)
    backend='auto',  # of nouns: auto | spacy | lexicon
    pipeline='en_core_web_sm',  # spaCy's, by name or path
    adjectives='none',  # 'colour' keeps "red ball" together
    min_area=1,  # pixels a proposal must have
    min_score=-1.0,  # cosine that a pair must reach; -1 keeps all, as the paper
    chunk=64,  # images between two resumable points
    disk_megabytes=500,  # that must be free before mining starts
  )


def _test() -> ml_collections.ConfigDict:
  return _section(
    prompt_depth=0,  # mask prompts used at inference; 0: none
    classifier='ensemble',  # ensemble | clip | proposer
    weight=0.7,  # lambda, the share of CLIP (ADE20K's value)
    chunk=128,  # regions through CLIP at once
    shortest=640,  # side of the network's input
    longest=2560,
  )


def _eval() -> ml_collections.ConfigDict:
  return _section(
    checkpoint='',  # an assembled OVSeg
    split='val',
    batch_size=8,
    bucket=1,  # heights and widths are padded to multiples; see docs/datasets.md
    max_targets=12,  # true masks per image in the oracle analyses
    pictures=6,  # images of the first batch kept for the report
    methods=(
      _section(classifier='proposer', weight=0.0),
      _section(classifier='clip', weight=0.0),
      _section(classifier='ensemble', weight=0.7),
    ),
  )


def finish(config: ml_collections.ConfigDict, arg: str) -> ml_collections.ConfigDict:
  """Applies `arg` and locks the keys.

  Raises:
    ValueError: `arg` is neither empty nor 'smoke'.
  """
  if arg not in ('', 'smoke'):
    hint = ' Did you mean "smoke"?' if difflib.get_close_matches(arg, ['smoke']) else ''
    raise ValueError(f'unknown argument {arg!r} after the colon; known: smoke.{hint}')
  if arg == 'smoke':
    stages = [config] if 'stages' not in config else list(config.stages.values())
    for stage in {id(c): c for c in [config, *stages]}.values():
      _smoke(stage)
    config.name = f'{config.name}_smoke'
  return config.lock()


# Backbones of the same kind with which `smoke` compiles in seconds.
_SMOKE_BACKBONES = {'r101c': 'r_mini', 'swin_base': 'swin_mini'}


def _smoke(config: ml_collections.ConfigDict) -> None:
  """The tiny model, a few steps, a handful of pictures."""
  if config.proposer.backbone in _SMOKE_BACKBONES:
    backbone = _SMOKE_BACKBONES[config.proposer.backbone]
    config.proposer.update(dataclasses.asdict(maskformer.PRESETS['tiny']))
    config.proposer.backbone = backbone
    config.train.shortest = (48, 64, 96)
    config.train.crop = 64
    config.train.max_targets = 12
  config.dataset.variant = 'smoke'
  config.optimize_programs = False  # compiling is most of the time
  config.clip.unroll = 1
  config.proposer.layers = 1
  language = config.coseg.language
  language.encoder_layers = 1
  language.decoder_layers = min(language.decoder_layers, 1)
  config.train.steps = 4
  config.train.batch_size = min(8, config.train.batch_size)
  config.train.log_every = 1
  config.train.save_every = 2
  config.optimizer.warmup = 1
  config.mining.chunk = 8
  config.mining.min_score = -1.0
  config.eval.batch_size = 4
