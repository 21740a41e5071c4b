"""How pairs of masks and nouns are mined."""

import dataclasses
from typing import Annotated, Literal

from ovs_jax.core.limits import Count, Given, Maybe, Name, Natural, OneOf, Range, Size
from ovs_jax.models.ovseg import DTYPES


@dataclasses.dataclass(frozen=True)
class Mining:
  """Of the mode mine."""

  # an OVSeg with the un-adapted CLIP; for true masks a CLIP will do
  checkpoint: Given = ''
  split: Name = 'train'  # of the data set
  # truth: one mask per class of the label maps
  masks: Literal['proposals', 'truth'] = 'proposals'
  nouns: Literal['captions', 'classes'] = 'captions'  # classes: of the label maps
  captions: Count = 1  # used per image (the paper: 1 is better than 5)
  # COCO captions (JSON) for a data set without; by file name
  caption_file: Given = ''
  # side that images are resized to; 0: as they are, all of one size
  shortest: Maybe = 0
  longest: Size = 2560  # and what their longer side is at most
  # that the networks compute in; '': the checkpoint's
  dtype: Annotated[str, OneOf(('', *DTYPES))] = ''
  backend: Literal['auto', 'spacy', 'lexicon'] = 'auto'  # of nouns
  pipeline: Name = 'en_core_web_sm'  # spaCy's, by name or path
  # names ("tennis racket") | paper (each noun by itself)
  nouns_as: Literal['names', 'paper'] = 'names'
  # 'colour' keeps "red ball" together; not with nouns_as='paper'
  adjectives: Literal['none', 'colour'] = 'none'
  # of a noun and a mask: their cosine, or a softmax of it over these
  score: Literal['cosine', 'proposals', 'nouns'] = 'cosine'
  exclusive: bool = False  # whether a mask serves one noun of its image only
  min_area: Natural = 1  # pixels a proposal must have
  # that a pair must reach; -1 keeps all, as the paper
  min_score: Annotated[float, Range(least=-1, most=1)] = -1.0
  # pairs of a noun kept, those with the highest scores; 0: all
  max_per_noun: Natural = 0
  min_noun_count: Natural = 0  # pairs that a noun must have to be kept
  # side that crops are stored at most with; 0: as they are
  crop_shortest: Maybe = 0
  crop_format: Literal['png', 'jpeg'] = 'png'  # png (no loss) | jpeg; masks are png
  # images between two resumable points; a file of the pairs
  chunk: Count = 64
  # of all pairs, free before mining starts; 0: an estimate
  disk_megabytes: Natural = 0
