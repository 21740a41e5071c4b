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
  config.checkpoint = ''  # to evaluate; another name of eval.checkpoint
  config.optimize_programs = True  # False compiles sooner and runs slower
  config.mesh = _section(
    data=-1,  # devices along the batch; -1: all
    model=1,  # devices along heads and hidden units
    fsdp=False,  # whether large parameters are split along the batch's devices, too
    rules=(),  # (path pattern, axes of its last dimensions), before the package's own
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
  config.init = _init()
  config.needs = ()  # what must be there first: (key, what it is, command to make it)
  config.train = _train()
  config.adapt = _adapt()
  config.optimizer = _optimizer()
  config.mining = _mining()
  config.test = _test()
  config.eval = _eval()
  config.eval.checkpoint = config.get_ref('checkpoint')
  config.suite = _suite()
  config.systems = _systems()
  config.report = _report()
  return config


def _section(**keys: object) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(keys)


def _init() -> ml_collections.ConfigDict:
  return _section(
    clip='',  # checkpoint to start from, or whose text tower names the classes
    proposer='',  # proposer to assemble, or whose training goes on from this one
    backbone='',  # checkpoint whose backbone the proposer's training starts from
    clipseg='',  # CLIPSeg whose decoder to go on with; '' draws one beside init.clip
    pairs='',  # mined data set
    more_pairs=(),  # others to mix in: (directory, weight of a pair; 1: once an epoch)
    labelled='',  # pairs of true masks and class names, classified during training
    prompts='',  # directory of mask prompts for the CLIP in `clip` or `eval.checkpoint`
  )


def _train() -> ml_collections.ConfigDict:
  return _section(
    steps=1000,  # 0: as many as `epochs` has
    epochs=0.0,  # over the data that is there, with whole batches; 0: `steps` decides
    batch_size=64,  # of all devices and hosts together
    accumulate=1,  # turns in which a batch is computed, each with its own loss
    split='train',
    min_crop=0.9,  # random crops keep at least this share of each side
    text_length=24,  # tokens per caption; longer ones are cut
    max_targets=12,  # masks per image for the proposer
    classes='seen',  # of the proposer: all | seen (held-out ones become void)
    shortest=(),  # sides that the proposer's images are resized to; none: as they are
    longest=2560,  # and what their longer side is at most
    crop=0,  # side of the proposer's crops, padded where images are smaller; 0: none
    paste=0.15,  # largest share of a scene that things pasted into others have
    paste_scenes=0,  # how many others they come from; 0: nothing is pasted
    colour=False,  # whether the proposer's images are distorted in colour
    set_weights=_section(**SET_WEIGHTS),  # of the proposer's losses: ce, mask, dice
    pilot_weight=0.0,  # of naming what queries see that are shown a target; 0: none
    attention_weight=0.0,  # of a loss that matched queries look elsewhere
    mask_stride=1,  # pixels to a side of what their masks are compared in
    keep=2,  # checkpoints kept
    ema=0.0,  # decay of the average of what trains, which is kept instead; 0: none
    skip_not_finite=0,  # steps in a row left out at most, if not finite; 0: none
    log_every=20,
    writers=(),  # of metrics: tensorboard, clu, wandb; (): tensorboard, if installed
    save_every=250,
    disk_megabytes=500,  # that must be free before training starts
    profile=0,  # steps to trace into <workdir>/profile, for Perfetto or TensorBoard
  )


def _adapt() -> ml_collections.ConfigDict:
  return _section(
    prior='mask',  # how crops are cut: mask (background filled) | box (as they are)
    crop_area=(),  # least and most area of random crops; (): train.min_crop decides
    crop_ratio=(0.75, 1.3333333333333333),  # and of their width to height
    uint8=False,  # crops become bytes on the host: a quarter of the transfer
    cache_text=False,  # embed all nouns before training; the text tower must be frozen
    balance=0.0,  # nouns are drawn by frequency (0), its root (0.5) or alike (1)
    duplicates='negatives',  # crops of a noun: negatives | ignored | positives
    loss_chunk=0,  # columns of logits at once; 0: all
    store='all',  # in checkpoints: all | prompts (and the temperature, if trained)
    evaluate_every=0,  # steps between classifications of init.labelled; 0: never
    evaluate_batch=64,
  )


def _slots() -> ml_collections.ConfigDict:
  return _section(
    template='a photo of a {}',  # text of a slot's label, and of "unlabeled"
    flip=False,  # the paper mentions no augmentation
    cache='',  # directory for CLIP's activations of each image; '': computed each time
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
    table='',  # CSV of your images, masks and phrases; '' takes the data set's classes
    crop='none',  # of a table's images: none (squashed) | square (random, CLIPSeg's)
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
    muon=(),  # (path pattern, number of input axes): matrices that Muon moves
    groups=((r'.*', 1.0),),  # (path pattern, learning-rate scale or None to freeze)
    decay=((NO_DECAY, 0.0), (r'.*', 1.0)),  # (path pattern, share of weight_decay)
  )


def _mining() -> ml_collections.ConfigDict:
  return _section(
    checkpoint='',  # an OVSeg with the un-adapted CLIP; for true masks a CLIP will do
    split='train',
    masks='proposals',  # proposals | truth (one mask per class of the label maps)
    nouns='captions',  # captions | classes (of the label maps)
    captions=1,  # used per image (the paper: 1 is better than 5)
    caption_file='',  # COCO captions (JSON) for a data set without; by file name
    shortest=0,  # side that images are resized to; 0: as they are, all of one size
    longest=2560,  # and what their longer side is at most
    dtype='',  # that the networks compute in: float32 | bfloat16; '': the checkpoint's
    backend='auto',  # of nouns: auto | spacy | lexicon
    pipeline='en_core_web_sm',  # spaCy's, by name or path
    nouns_as='names',  # names ("tennis racket") | paper (each noun by itself)
    adjectives='none',  # 'colour' keeps "red ball" together; not with nouns_as='paper'
    score='cosine',  # of a noun and a mask: cosine | proposals | nouns (softmax over)
    exclusive=False,  # whether a mask serves one noun of its image only
    min_area=1,  # pixels a proposal must have
    min_score=-1.0,  # that a pair must reach; -1 keeps all, as the paper
    max_per_noun=0,  # pairs of a noun kept, those with the highest scores; 0: all
    min_noun_count=0,  # pairs that a noun must have to be kept
    crop_shortest=0,  # side that crops are stored at most with; 0: as they are
    crop_format='png',  # of crops: png (no loss) | jpeg; masks are png
    chunk=64,  # images between two resumable points; a file of the pairs
    disk_megabytes=0,  # of all pairs, free before mining starts; 0: an estimate
  )


def _test() -> ml_collections.ConfigDict:
  return _section(
    prompt_depth=-1,  # of an assembled OVSeg's mask prompts: 0 none, -1 its CLIP's
    clip_side=0,  # CLIP's input, with resized positions; 0: its own (no mask prompts)
    classifier='ensemble',  # ensemble | clip | proposer
    weight=0.7,  # lambda, the share of CLIP (ADE20K's value)
    chunk=128,  # regions through CLIP at once
    shortest=640,  # side of the network's input
    longest=2560,
  )


def _eval() -> ml_collections.ConfigDict:
  return _section(
    checkpoint='',  # an assembled OVSeg; of mode benchmark also a CLIPSeg or CoSeg
    split='val',
    # In place of the checkpoint's own settings, which '' and 0 leave as they are.
    dtype='',  # that networks see images in: float32 | bfloat16
    templates='',  # vild | clip | single, see ovs_jax.text.templates
    shortest=0,  # side that images are resized to
    longest=0,  # side that they keep within
    threshold=0.0,  # from which a mask's pixel is shown to CLIP
    proposer_side=0,  # of the square that the proposer sees; 0: images as they are
    save_every=500,  # images of a process after which its counts are kept
    distractors=(),  # numbers of irrelevant names, each tried in the own setting
    pictures=6,  # first images that are kept for the report
    methods=(
      _section(classifier='proposer', weight=0.0),
      _section(classifier='clip', weight=0.0),
      _section(classifier='ensemble', weight=0.7),
    ),
  )


def _suite() -> ml_collections.ConfigDict:
  return _section(
    datasets=('scenes',),  # each NAME, NAME/VARIANT or NAME/VARIANT:SPLIT
    tuned=(),  # (data set, lambda): a second column, labelled so
    search=(),  # lambdas to choose from on the data themselves; refused on test splits
    i_know=False,  # search on test splits all the same; --i-know
    predictions='',  # directory of another system's label maps; --predictions=DIR
    save_predictions=False,  # keep the headline's label maps; of all modes
    training='coco_stuff_171',  # class list of training, where a list does not say
    near=0.9,  # cosine of names from which on an unseen class is a near one
    distractors=(100, 1_000, 10_000),  # irrelevant names that are added
    distractor_images=100,  # the first images, on which they are; 0: all
    single_concepts=True,  # also ask for one name at a time
    bootstrap=1000,  # resampled data sets for the intervals; 0: none
    sheet=3,  # pictures each of the best, median and worst images
  )


def _systems() -> ml_collections.ConfigDict:
  return _section(
    clipseg='',  # CLIPSeg of CoSeg without training; '' leaves it out
    label_clip='',  # the CLIP that chooses its labels; '' takes the CLIPSeg's own
    labels=20,  # k, labels per image (the paper's)
    select='a photo of {}',  # sentence of the choice (section 3.6)
    prompt='a photo of a {}.',  # sentence for CLIPSeg; the paper does not say
    all_names=False,  # also the CLIPSeg with every name as a prompt
    coseg=_section(  # trained CoSegs; '' leaves one out
      prefix='',
      cross='',
      prefix_alone='',
      cross_alone='',
      prefix_one='',
      cross_one='',
      prefix_area_sort='',
      prefix_no_dice='',
      prefix_size='',
    ),
    split='val',
    images=0,  # only the first ones; 0: all
    protocols=('standard',),  # standard (whole images, their size) | paper (centre)
    side=224,  # of the centre crops of the protocol `paper`
    rules=('A', 'B', 'C', 'D'),  # of merging; see ovs_jax.ops.merging
    threshold=0.3,  # of the masks in A, B and D (the paper's)
    tau=0.08,  # temperature of the labels in C
    distractors=(),  # numbers of irrelevant names, each tried with rule A
    bounds=True,  # also with true labels, and with true masks
    many=4,  # classes of an image from which it counts as one with many
    resamples=1000,  # bootstraps over the images for intervals; 0: none
  )


def _report() -> ml_collections.ConfigDict:
  return _section(
    frozen='',  # directory of the evaluation of the un-adapted CLIP
    adapted='',  # and of the adapted one
    method='ensemble_0.70',  # whose label maps are shown
    run='',  # of the pipeline, whose stages are timed
    seeds=('seed_0',),  # directories of a replication's seeds, below `run`
    resamples=1000,  # bootstraps of a replication's intervals
  )


def follow(
  stage: ml_collections.ConfigDict, pipeline: ml_collections.ConfigDict
) -> None:
  """Lets a stage have its pipeline's data set and mesh, also when flags change them."""
  for section in ('dataset', 'mesh'):
    for field in pipeline[section]:
      stage[section][field] = pipeline[section].get_ref(field)


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
  config.train.update(steps=4, epochs=0.0)
  config.train.batch_size = min(8, config.train.batch_size)
  config.train.log_every = 1
  config.train.save_every = 2
  config.optimizer.warmup = 1
  config.train.disk_megabytes = min(500, config.train.disk_megabytes)
  config.test.shortest = min(128, config.test.shortest)
  config.test.longest = min(512, config.test.longest)
  config.mining.shortest = min(128, config.mining.shortest)
  config.mining.chunk = 8
  config.mining.min_score = -1.0
  # After a few steps the proposer is sure of nothing.
  config.region.threshold = 0.1
  config.mining.min_area = 1
  config.systems.images = 2
  config.systems.side = min(128, config.systems.side)
  config.systems.resamples = 10
