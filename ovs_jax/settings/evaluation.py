"""How models are put together and evaluated, and what is reported."""

import dataclasses
from typing import Annotated, Literal

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import (
  Count,
  FileName,
  Filled,
  Given,
  Maybe,
  Name,
  Natural,
  OneOf,
  Positive,
  Range,
  Sentence,
  Share,
  Size,
  Spot,
  Weight,
)
from ovs_jax.models.ovseg import DTYPES
from ovs_jax.ops.ensemble import CLASSIFIERS
from ovs_jax.ops.merging import RULES
from ovs_jax.text import vocabulary
from ovs_jax.text.templates import TEMPLATES

ClassList = Annotated[str, OneOf(vocabulary.known())]
Classifier = Annotated[str, OneOf(CLASSIFIERS)]
Row = tuple[Name, Annotated[Given, Filled()], tuple[float | None, ...]]  # of a table


@dataclasses.dataclass(frozen=True)
class Test:
  """What an assembled OVSeg does unless it is told otherwise."""

  # of its mask prompts: 0 none, -1 its CLIP's
  prompt_depth: Annotated[int, Range(least=-1)] = -1
  # CLIP's input, with resized positions; 0: its own (no mask prompts)
  clip_side: Maybe = 0
  # further CLIPs that see the same regions: the mean of the probabilities by all, the
  # own one (init.clip) first, takes the place of one; evaluations take this, too
  clips: tuple[Annotated[Given, Filled()], ...] = ()
  clip_weights: tuple[Weight, ...] = ()  # of all CLIPs in the mean; (): all the same
  classifier: Classifier = 'ensemble'  # that names masks
  weight: Share = 0.7  # lambda, the share of CLIP (ADE20K's value)
  chunk: Count = 128  # regions through CLIP at once
  shortest: Size = 640  # side of the network's input
  longest: Size = 2560  # and what its longer side is at most


@dataclasses.dataclass(frozen=True)
class Method:
  """A classifier, and the share of CLIP in an ensemble."""

  classifier: Classifier
  weight: Share

  def __str__(self) -> str:
    """As config.json has it."""
    return f'classifier: {self.classifier}\nweight: {self.weight}\n'


@dataclasses.dataclass(frozen=True)
class Eval:
  """Of the modes evaluate and benchmark."""

  # an assembled OVSeg; of mode benchmark also a CLIPSeg or CoSeg
  checkpoint: Given = ''
  split: Name = 'val'  # of mode evaluate
  # that networks see images in; '': the checkpoint's own
  dtype: Annotated[str, OneOf(('', *DTYPES))] = ''
  # in place of the checkpoint's own, which '' leaves as they are
  templates: Annotated[str, OneOf(('', *TEMPLATES))] = ''
  shortest: Maybe = 0  # side that images are resized to; 0: the checkpoint's own
  longest: Maybe = 0  # side that they keep within, likewise
  threshold: Share = 0.0  # from which a mask's pixel is shown to CLIP, likewise
  # of the square that the proposer sees; 0: images as they are
  proposer_side: Maybe = 0
  # of an OVSeg: what makes masks; grid: superpixels, as if there were no proposer
  propose: Literal['proposer', 'grid'] = 'proposer'
  # of an OVSeg: rounds them as an export with fewer bits has them
  weights: Literal['float32', 'bfloat16', 'int8'] = 'float32'
  # of an OVSeg: label of a pixel in which no name has a score; first: as the reference
  no_score: Literal['none', 'first'] = 'none'
  # of an OVSeg: pixels within which borders of label maps move to those of the picture
  refine: Maybe = 0
  save_every: Count = 500  # images of a process after which its counts are kept
  # numbers of irrelevant names, each tried in the own setting
  distractors: tuple[Natural, ...] = ()
  pictures: Natural = 6  # first images that are kept for the report
  # classifiers that are compared, with their shares of CLIP
  methods: tuple[Method, ...] = (
    Method('proposer', 0.0),
    Method('clip', 0.0),
    Method('ensemble', 0.7),
  )


@dataclasses.dataclass(frozen=True)
class Suite:
  """Of the mode benchmark."""

  # each NAME, NAME/VARIANT or NAME/VARIANT:SPLIT
  datasets: Annotated[tuple[Name, ...], Filled()] = ('scenes',)
  # (data set, lambda): a second column, labelled so
  tuned: tuple[tuple[Name, Share], ...] = ()
  # lambdas to choose from on the data themselves; refused on test splits
  search: tuple[Share, ...] = ()
  # equal parts that the weight is divided into among several CLIPs, to choose from all
  # divisions in the same way, with each lambda of `search`; 0: none
  search_clips: Annotated[int, Range(least=0, most=20)] = 0
  i_know: bool = False  # search on test splits all the same; --i-know
  # directory of another system's label maps; --predictions=DIR
  predictions: Given = ''
  # of an OVSeg: masks of the images in place of proposals; --masks=DIR
  masks: Given = ''
  save_predictions: bool = False  # keep the headline's label maps; of all modes
  # class list of training, where a list does not say: one of text/names, or a file
  # of names, such as DIR/names.txt
  training: ClassList | Annotated[str, FileName()] = 'coco_stuff_171'
  # cosine of names from which on an unseen class is a near one; above 1: none is
  near: Weight = 0.9
  distractors: tuple[Natural, ...] = (100, 1_000, 10_000)  # irrelevant names to add
  distractor_images: Natural = 100  # the first images, on which they are; 0: all
  single_concepts: bool = True  # also ask for one name at a time
  recall: bool = True  # of an OVSeg also count the true masks that proposals show
  calibration: bool = True  # also count how often labels are right, by confidence
  bootstrap: Natural = 1000  # resampled data sets for the intervals; 0: none
  sheet: Natural = 3  # pictures each of the best, median and worst images

  @property
  def searches(self) -> bool:
    """Whether settings are chosen."""
    return bool(self.search or self.search_clips)


@dataclasses.dataclass(frozen=True)
class CoSegs:
  """Trained CoSegs; '' leaves one out."""

  cross: Given = ''  # directory of the cross model
  cross_alone: Given = ''  # of one whose slots do not see each other
  cross_one: Given = ''  # of one with a single slot
  prefix: Given = ''  # directory of the prefix model
  prefix_alone: Given = ''  # of one whose slots do not see each other
  prefix_area_sort: Given = ''  # of one whose slots were sorted by area
  prefix_no_dice: Given = ''  # of one that was trained without dice
  prefix_one: Given = ''  # of one with a single slot
  prefix_size: Given = ''  # of one that knows the sizes of slots


@dataclasses.dataclass(frozen=True)
class Systems:
  """Of the mode evaluate_systems, and of CLIPSegs and CoSegs in benchmark."""

  clipseg: Given = ''  # CLIPSeg of CoSeg without training; '' leaves it out
  label_clip: Given = ''  # the CLIP that chooses its labels; '' takes the CLIPSeg's own
  labels: Natural = 20  # k, labels per image (the paper's)
  # of mode benchmark: directory of one that has chosen labels; '' lets CLIP choose
  labels_from: Given = ''
  select: Sentence = 'a photo of {}'  # sentence of the choice (section 3.6)
  # sentence for CLIPSeg; the paper does not say
  prompt: Sentence = 'a photo of a {}.'
  all_names: bool = False  # also the CLIPSeg with every name as a prompt
  coseg: CoSegs = CoSegs()
  split: Name = 'val'  # of the data set
  images: Natural = 0  # only the first ones; 0: all
  # standard (whole images, their size) | paper (centre)
  protocols: Annotated[tuple[Literal['standard', 'paper'], ...], Filled()] = (
    'standard',
  )
  side: Size = 224  # of the centre crops of the protocol `paper`
  # of merging; see ovs_jax.ops.merging
  rules: tuple[Annotated[str, OneOf(RULES)], ...] = ('A', 'B', 'C', 'D')
  threshold: Share = 0.3  # of the masks in A, B and D (the paper's)
  tau: Positive = 0.08  # temperature of the labels in C
  # what a CoSeg, trained on squares, sees of other pictures: see inference.coseg_views
  view: Literal['squash', 'pad', 'windows'] = 'squash'
  # numbers of irrelevant names, each tried with rule A
  distractors: tuple[Natural, ...] = ()
  bounds: bool = True  # also with true labels, and with true masks
  many: Natural = 4  # classes of an image from which it counts as one with many
  resamples: Natural = 1000  # bootstraps over the images for intervals; 0: none


@dataclasses.dataclass(frozen=True)
class Report:
  """Of the modes report and replicate."""

  frozen: Given = ''  # directory of the evaluation of the un-adapted CLIP
  adapted: Given = ''  # and of the adapted one
  method: Name = 'ensemble_0.70'  # whose label maps are shown
  run: Spot = ''  # of the pipeline, whose stages are timed
  # directories of a replication's seeds, below `run`
  seeds: Annotated[tuple[Name, ...], Filled()] = ('seed_0',)
  resamples: Count = 1000  # bootstraps of a replication's intervals


@dataclasses.dataclass(frozen=True)
class Choose:
  """Of the mode choose, which decides between settings without unseen classes."""

  # what was set; directories of runs of mode evaluate, one for each fold of the seen
  # classes; and the run on what counts
  settings: tuple[tuple[Name, tuple[Given, ...], Given], ...] = ()
  usual: tuple[str, str] = ('', '')  # setting and method to show beside, if any


@dataclasses.dataclass(frozen=True)
class Table:
  """Of the mode table, which joins benchmarks."""

  title: str = ''  # above the table
  note: str = ''  # below it
  columns: tuple[Name, ...] = ()  # data sets
  # name of the method; directory of a run of mode benchmark; published mIoU of each
  # column, as detectron2 0.6 counts it, None where there is none
  rows: tuple[Row, ...] = ()

  def __post_init__(self) -> None:
    for name, _, published in self.rows:
      if len(published) > len(self.columns):
        raise UserError(
          f'rows: {name!r} has {len(published)} published numbers for '
          f'{len(self.columns)} columns; leave out those without a column'
        )
