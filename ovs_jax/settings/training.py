"""What trains, from what, and how."""

import dataclasses
from typing import Annotated, Literal

from ovs_jax.core.limits import (
  Ascending,
  Count,
  Filled,
  Given,
  Maybe,
  Name,
  Natural,
  OneOf,
  Pattern,
  Positive,
  Range,
  Rate,
  Sentence,
  Share,
  Size,
  Spot,
  Weight,
)
from ovs_jax.core.schedule import SCHEDULES
from ovs_jax.core.writers import WRITERS
from ovs_jax.ops import contrastive, coseg
from ovs_jax.ops.losses import SET_WEIGHTS

# Parameters that AdamW does not decay: norms, biases, one-dimensional embeddings.
NO_DECAY = r'(bias|scale|class_embedding|logit_scale|mask_prompt)$'
PHRASES = (  # CLIPSeg's
  'a photo of a {}.',
  'a photograph of a {}.',
  'an image of a {}.',
  '{}.',
  'a cropped photo of a {}.',
  'a good photo of a {}.',
  'a photo of one {}.',
  'a bad photo of a {}.',
  'a photo of the {}.',
)
Part = Annotated[float, Range(above=0, most=1)]
Area = Annotated[tuple[()] | tuple[Part, Part], Ascending()]


@dataclasses.dataclass(frozen=True)
class Init:
  """What there is before."""

  clip: Given = ''  # checkpoint to start from, or whose text tower names the classes
  proposer: Given = ''  # proposer to assemble, or whose training goes on from this one
  backbone: Given = ''  # checkpoint whose backbone the proposer's training starts from
  # CLIPSeg whose decoder to go on with; '' draws one beside init.clip
  clipseg: Given = ''
  pairs: Given = ''  # mined data set
  # others to mix in: (directory, weight of a pair; 1: once an epoch)
  more_pairs: tuple[tuple[Given, Weight], ...] = ()
  # pairs of true masks and class names, classified during training
  labelled: Given = ''
  # directory of mask prompts for the CLIP in `clip` or `eval.checkpoint`
  prompts: Given = ''


@dataclasses.dataclass(frozen=True)
class SetWeights:
  """Weights of the proposer's losses."""

  ce: Weight = SET_WEIGHTS['ce']  # of the names
  mask: Weight = SET_WEIGHTS['mask']  # of the pixels of masks (focal)
  dice: Weight = SET_WEIGHTS['dice']  # of their overlap


@dataclasses.dataclass(frozen=True)
class Train:
  """Of the loop, and of what recipes share."""

  steps: Natural = 1000  # in all; 0: as many as `epochs` has
  # over the data that is there, with whole batches; 0: `steps` decides
  epochs: Weight = 0.0
  batch_size: Count = 64  # of all devices and hosts together
  accumulate: Count = 1  # turns in which a batch is computed, each with its own loss
  split: Name = 'train'  # of the data set
  min_crop: Part = 0.9  # random crops keep at least this share of each side
  text_length: Annotated[int, Range(least=2)] = 24  # tokens per caption; more are cut
  # of clip_pretrain: of naming images as wholes; 0: not done
  image_weight: Weight = 1.0
  # and by their patches, in mosaics of 4 x 4 images; 0: not done
  patch_weight: Weight = 0.0
  # pixels that images have there, each size for its share of the batch
  patch_sides: Annotated[tuple[Size, ...], Filled()] = (32,)
  max_targets: Count = 12  # masks per image for the proposer
  # of the proposer; of 'seen' held-out ones become void
  classes: Literal['seen', 'all'] = 'seen'
  # sides that the proposer's images are resized to; none: as they are
  shortest: tuple[Size, ...] = ()
  longest: Size = 2560  # and what their longer side is at most
  # whether all masks of a proposer are of one class, "something"
  agnostic: bool = False
  # further prepared data sets of such a proposer, NAME or NAME/VARIANT; their masks are
  # those of the classes that an image shows, whatever they are called
  also: tuple[Annotated[Given, Filled()], ...] = ()
  # side of the proposer's crops, padded where images are smaller; 0: none
  crop: Maybe = 0
  paste: Share = 0.15  # largest share of a scene that things pasted into others have
  paste_scenes: Natural = 0  # how many others they come from; 0: nothing is pasted
  colour: bool = False  # whether the proposer's images are distorted in colour
  set_weights: SetWeights = SetWeights()
  # of naming what queries see that are shown a target; 0: none
  pilot_weight: Weight = 0.0
  attention_weight: Weight = 0.0  # of a loss that matched queries look elsewhere
  mask_stride: Count = 1  # pixels to a side of what their masks are compared in
  # how much more masks count whose size is rare in a batch: 0 not at all; 1: small,
  # medium and large ones count alike
  size_balance: Share = 0.0
  # photos of the data set that a proposer or CLIPSeg labels on the way, to keep the
  # best step;
  # such as train[:20%], beside split=train[20%:]; '': none
  choose: str = ''
  choose_every: Count = 50  # steps between these; test.shortest and longest are theirs
  # evaluations in a row without a better one, after which a training ends; 0: none
  patience: Natural = 0
  keep: Count = 2  # checkpoints kept
  # decay of the average of what trains, which is kept instead; 0: none
  ema: Rate = 0.0
  # steps in a row left out at most, if not finite; 0: none
  skip_not_finite: Natural = 0
  log_every: Count = 20  # steps
  # of metrics; (): tensorboard, if installed
  writers: tuple[Annotated[str, OneOf(WRITERS)], ...] = ()
  save_every: Count = 250  # steps
  disk_megabytes: Natural = 500  # that must be free before training starts
  # steps to trace into <workdir>/profile, for Perfetto or TensorBoard
  profile: Natural = 0


@dataclasses.dataclass(frozen=True)
class Adapt:
  """Of the recipe clip_regions."""

  # how crops are cut: mask (background filled) | box (as they are)
  prior: Literal['mask', 'box'] = 'mask'
  # least and most area of random crops; (): train.min_crop decides
  crop_area: Area = ()
  # and of their width to height
  crop_ratio: Annotated[tuple[Positive, Positive], Ascending()] = (0.75, 4 / 3)
  uint8: bool = False  # crops become bytes on the host: a quarter of the transfer
  # embed all nouns before training; the text tower must be frozen
  cache_text: bool = False
  balance: Share = 0.0  # nouns are drawn by frequency (0), its root (0.5) or alike (1)
  # crops of a noun
  duplicates: Annotated[str, OneOf(contrastive.DUPLICATES)] = 'negatives'
  loss_chunk: Natural = 0  # columns of logits at once; 0: all
  # in checkpoints; prompts: and the temperature, if trained
  store: Literal['all', 'prompts'] = 'all'
  # steps between classifications of init.labelled; 0: never
  evaluate_every: Natural = 0
  evaluate_batch: Count = 64  # crops at once in these


@dataclasses.dataclass(frozen=True)
class SlotWeights:
  """Weights of CoSeg's losses."""

  bce: Weight = 1.0  # binary cross entropy of masks
  dice: Weight = 0.0  # of their overlap
  focal: Weight = 0.0  # focal loss of masks
  language: Weight = 0.08  # the paper's lambda
  area: Weight = 0.0  # of predicted areas, if the model predicts them
  # of the masks that the decoder makes of the texts of all targets, beside the slots
  text: Weight = 0.0
  attention: Weight = 0.0  # of a loss that matched slots look elsewhere
  # of the language loss of the blocks before the last one
  deep: Weight = 0.0


@dataclasses.dataclass(frozen=True)
class Slots:
  """Of the recipe coseg."""

  template: Sentence = 'a photo of a {}'  # text of a slot's label, and of "unlabeled"
  # labels that no picture has, but which have a text (`anchor`) like the others
  more_labels: tuple[Name, ...] = ()
  flip: bool = False  # the paper mentions no augmentation
  # directory for CLIP's activations of each image; '': computed each time
  cache: Spot = ''
  # of slots to masks; area: sorted by it
  matching: Literal['area', 'hungarian'] = 'area'
  # 1 - cosine, cross entropy, dice in hungarian
  match_costs: tuple[Weight, Weight, Weight] = (1.0, 1.0, 1.0)
  unmatched: Weight = 0.1  # weight of slots that hungarian leaves over
  padded: Weight = 1.0  # and of those that area leaves over
  # among an image's labels, or all
  language_loss: Literal['sequence', 'vocabulary'] = 'sequence'
  tau: Positive = 0.08  # temperature of the language loss; CLIP's own is 0.01
  # equal labels of an image
  duplicates: Annotated[str, OneOf(coseg.DUPLICATES)] = 'literal'
  direction: Annotated[str, OneOf(coseg.DIRECTIONS)] = 'pred2gt'  # what is contrasted
  # pixels without a label are negatives in every mask, unless they are ignored
  ignore_unlabeled: bool = False
  forced: Share = 0.0  # share of slots decoded from the text of their label
  weights: SlotWeights = SlotWeights()


@dataclasses.dataclass(frozen=True)
class PhraseWeights:
  """Weights of CLIPSeg's losses."""

  bce: Weight = 1.0  # binary cross entropy
  dice: Weight = 0.0  # of the overlap
  focal: Weight = 0.0  # focal loss


@dataclasses.dataclass(frozen=True)
class Phrases:
  """Of the recipe clipseg."""

  # CSV of your images, masks and phrases; '' takes the data set's classes
  table: Given = ''
  # of a table's images: none (squashed) | square (random, CLIPSeg's)
  crop: Literal['none', 'square'] = 'none'
  # one is drawn for each image and step; CLIPSeg's
  templates: Annotated[tuple[Sentence, ...], Filled()] = PHRASES
  negative: Share = 0.2  # share of examples whose phrase is not in the image
  weights: PhraseWeights = PhraseWeights()


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """AdamW, or Muon; see `ovs_jax.train.optimizer`."""

  schedule: Annotated[str, OneOf(SCHEDULES)] = 'warmup_cosine'  # of the learning rate
  learning_rate: Positive = 1e-3  # the highest
  warmup: Natural = 50  # steps
  end: Share = 0.0  # last learning rate, as a share of the first
  power: Weight = 0.9  # of the polynomial schedule
  b1: Rate = 0.9  # of Adam's first moment
  b2: Rate = 0.999  # of its second
  eps: Weight = 1e-8  # added to the root of the second
  weight_decay: Weight = 0.0  # times the learning rate
  gradient_clip: Positive | None = None  # global norm
  # (path pattern, number of input axes): matrices that Muon moves
  muon: tuple[tuple[Pattern, int | None], ...] = ()
  # path patterns of layers in one array, by its first axis: a matrix each for Muon
  stacked: tuple[Pattern, ...] = ()
  # (path pattern, learning-rate scale or None to freeze)
  groups: Annotated[tuple[tuple[Pattern, Weight | None], ...], Filled()] = (
    (r'.*', 1.0),
  )
  # (path pattern, share of weight_decay)
  decay: Annotated[tuple[tuple[Pattern, Weight], ...], Filled()] = (
    (NO_DECAY, 0.0),
    (r'.*', 1.0),
  )
