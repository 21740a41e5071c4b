"""Where each benchmark keeps its files, how many there are, what labels mean."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping

from ovs_jax.data import sources
from ovs_jax.data.sources import Labels, Pair, Problem, SourceError

Lister = Callable[[pathlib.Path], list[Pair]]


@dataclasses.dataclass(frozen=True)
class Split:
  """One split.

  Attributes:
    count: published number of images.
    pairs: lists the examples below the source, whether or not their files are there.
    listing: the file that names them, if there is one.
    drop_void: leave out images without a labelled pixel, as the reference does for
      training.
    hide_unseen: make classes void that the class list calls unseen.
  """

  count: int
  pairs: Lister
  listing: str = ''
  drop_void: bool = False
  hide_unseen: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
  """A benchmark as its authors publish it.

  Attributes:
    title: what it is.
    vocabulary: class list in `text/names`, with the values of label files.
    splits: by the name they get here.
    files: what must be below the source directory.
    where: addresses to get it from.
    licence: of images and annotations.
    read_label: from a label file to its values; None without label maps.
    ignored: values that occur and are no class; they become void.
    captions: whether there are captions.
  """

  title: str
  vocabulary: str
  splits: Mapping[str, Split]
  files: str
  where: str
  licence: str
  read_label: Callable[[pathlib.Path], Labels] | None = None
  ignored: Iterable[int] = ()
  captions: bool = False

  def root(self, source: pathlib.Path) -> pathlib.Path:
    """Returns the source; its parent, if `source` is the data set's own top folder."""
    top = self.files.split('/')[0]
    inside = source.name == top and not (source / top).is_dir()
    return source.parent if inside else source


def _stems(folder: pathlib.Path, suffix: str) -> set[str]:
  return {path.stem for path in folder.glob(f'*{suffix}')}


def _folders(images: str, labels: str, source: pathlib.Path) -> list[Pair]:
  """Pairs of .jpg and .png with the same name in two folders."""
  image, label = source / images, source / labels
  stems = _stems(image, '.jpg') | _stems(label, '.png')
  return [Pair(s, image / f'{s}.jpg', label / f'{s}.png') for s in sorted(stems)]


def _captioned(split: str, source: pathlib.Path) -> list[Pair]:
  """Photographs of COCO with all their captions, in the order of the caption file."""
  path = source / 'coco' / 'annotations' / f'captions_{split}.json'
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    captions: dict[int, list[str]] = {int(x['id']): [] for x in content['images']}
    for x in content['annotations']:
      captions[int(x['image_id'])].append(' '.join(x['caption'].split()))
    names = {int(x['id']): x['file_name'] for x in content['images']}
  except FileNotFoundError:
    return []
  except (ValueError, KeyError, TypeError) as error:
    what = f'{path.relative_to(source).as_posix()} ({type(error).__name__}: {error})'
    raise SourceError('COCO Captions', [Problem('unreadable', what)]) from error
  folder = source / 'coco' / split
  return [
    Pair(pathlib.PurePath(names[i]).stem, folder / names[i], captions=tuple(found))
    for i, found in captions.items()
  ]


def _ade_full(source: pathlib.Path) -> list[Pair]:
  """Photographs and `_seg.png` whose name says `val`, wherever below images/."""
  root = source / 'ADE20K_2021_17_01' / 'images'
  images = {p.with_suffix(''): p for p in root.rglob('ADE_val_*.jpg')}
  labels = {
    p.with_name(p.name.removesuffix('_seg.png')): p
    for p in root.rglob('ADE_val_*_seg.png')
  }
  return [
    Pair(
      base.name,
      images.get(base, base.with_name(f'{base.name}.jpg')),
      labels.get(base, base.with_name(f'{base.name}_seg.png')),
    )
    for base in sorted({*images, *labels}, key=lambda p: p.name)
  ]


def _listed(root: str, ids: str, labels: str, source: pathlib.Path) -> list[Pair]:
  """Pairs whose names a text file lists; `labels` ends with the files' suffix."""
  folder = source / root
  path = folder / ids
  if not path.is_file():
    return []
  names = path.read_text(encoding='utf-8').split()
  if (
    labels.startswith('SegmentationClassAug') and not (folder / labels).parent.is_dir()
  ):
    labels = labels.replace('Aug', '')  # the same maps, as the VOC archive has them
  return [
    Pair(name, folder / 'JPEGImages' / f'{name}.jpg', folder / labels.format(name))
    for name in names
  ]


def _coco(split: str, **options: bool) -> Split:
  images, labels = f'coco/{split}', f'coco/stuffthingmaps/{split}'
  count = {'train2017': 118_287, 'val2017': 5_000}[split]
  return Split(count, functools.partial(_folders, images, labels), **options)


def _captions(split: str, count: int) -> Split:
  listing = f'coco/annotations/captions_{split}.json'
  return Split(count, functools.partial(_captioned, split), listing)


_COCO = {
  'where': 'http://images.cocodataset.org/zips/{train2017,val2017}.zip and http://'
  'calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/'
  'stuffthingmaps_trainval2017.zip',
  'licence': "annotations CC BY 4.0; photographs under their owners' Flickr licences",
}
_COCO_FILES = 'coco/{0}/*.jpg and coco/stuffthingmaps/{0}/*.png'
_VOC = {
  'splits': {
    'val': Split(
      1_449,
      functools.partial(
        _listed,
        'VOCdevkit/VOC2012',
        'ImageSets/Segmentation/val.txt',
        'SegmentationClassAug/{}.png',
      ),
      'VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt',
    )
  },
  'files': 'VOCdevkit/VOC2012/{JPEGImages/*.jpg, SegmentationClassAug/*.png or '
  'SegmentationClass/*.png, ImageSets/Segmentation/val.txt}',
  'where': 'http://host.robots.ox.ac.uk/pascal/VOC/voc2012/',
  'licence': "photographs under their owners' Flickr licences; research use",
  'read_label': sources.read_values,
}
_CONTEXT = {
  'splits': {
    'val': Split(
      5_104,
      functools.partial(
        _listed, 'VOCdevkit/VOC2010', 'pascalcontext_val.txt', 'trainval/{}.mat'
      ),
      'VOCdevkit/VOC2010/pascalcontext_val.txt',
    )
  },
  'files': 'VOCdevkit/VOC2010/{JPEGImages/*.jpg, trainval/*.mat, '
  'pascalcontext_val.txt}',
  'where': 'http://host.robots.ox.ac.uk/pascal/VOC/voc2010/ and '
  'https://www.cs.stanford.edu/~roozbeh/pascal-context/',
  'licence': "photographs under their owners' Flickr licences; research use",
  'read_label': sources.read_context,
}

LAYOUTS: dict[str, Layout] = {
  'coco_stuff_171': Layout(
    title='COCO-Stuff, 80 things and 91 stuff',
    vocabulary='coco_stuff_171',
    splits={'train': _coco('train2017', drop_void=True), 'val': _coco('val2017')},
    files=_COCO_FILES.format('{train2017,val2017}'),
    read_label=sources.read_values,
    ignored=(*range(182), 255),  # eleven values have no annotation; 255 is unlabelled
    **_COCO,
  ),
  'coco_stuff_156_15': Layout(
    title='COCO-Stuff with 15 classes hidden from training',
    vocabulary='coco_stuff_156_15',
    splits={
      'train': _coco('train2017', drop_void=True, hide_unseen=True),
      'val': _coco('val2017'),
    },
    files=_COCO_FILES.format('{train2017,val2017}'),
    read_label=sources.read_values,
    ignored=(*range(182), 255),
    **_COCO,
  ),
  'coco_80': Layout(
    title='COCO, 80 things; stuff is void',
    vocabulary='coco_80',
    splits={'val': _coco('val2017')},
    files=_COCO_FILES.format('val2017'),
    read_label=sources.read_values,
    ignored=(*range(182), 255),
    **_COCO,
  ),
  'coco_captions_2017': Layout(
    title='COCO Captions, five or more sentences an image; no label maps',
    vocabulary='coco_stuff_171',  # of the same photographs
    splits={
      'train': _captions('train2017', 118_287),
      'val': _captions('val2017', 5_000),
    },
    files='coco/{train2017,val2017}/*.jpg and '
    'coco/annotations/captions_{train2017,val2017}.json',
    captions=True,
    where='http://images.cocodataset.org/zips/{train2017,val2017}.zip and '
    'http://images.cocodataset.org/annotations/annotations_trainval2017.zip',
    licence=_COCO['licence'],
  ),
  'ade20k_150': Layout(
    title='ADE20K, the 150 classes of the scene parsing challenge',
    vocabulary='ade20k_150',
    splits={
      'val': Split(
        2_000,
        functools.partial(
          _folders,
          'ADEChallengeData2016/images/validation',
          'ADEChallengeData2016/annotations/validation',
        ),
      )
    },
    files='ADEChallengeData2016/{images,annotations}/validation/',
    where='http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
    licence='images for non-commercial research and education; annotations BSD-3',
    read_label=sources.read_values,
    ignored=(0,),  # other
  ),
  'ade20k_847': Layout(
    title='ADE20K, the 847 frequent classes of the full annotation (2021)',
    vocabulary='ade20k_847',
    splits={'val': Split(2_000, _ade_full)},
    files='ADE20K_2021_17_01/images/ADE/validation/**/ADE_val_*.jpg and _seg.png',
    where='https://groups.csail.mit.edu/vision/datasets/ADE20K/ (by registration)',
    licence='non-commercial research and education',
    read_label=sources.read_ade_full,
    ignored=range(3_689),  # 3,688 names in objects.txt; 0 is unlabelled
  ),
  'pascal_context_59': Layout(
    title='Pascal Context, the 59 frequent classes',
    vocabulary='pascal_context_59',
    ignored=range(460),
    **_CONTEXT,
  ),
  'pascal_context_459': Layout(
    title='Pascal Context, all classes',
    vocabulary='pascal_context_459',
    ignored=(0,),
    **_CONTEXT,
  ),
  'voc_20': Layout(
    title='Pascal VOC 2012, 20 classes; background is void',
    vocabulary='voc_20',
    ignored=(0, 255),
    **_VOC,
  ),
  'voc_20b': Layout(
    title='Pascal VOC 2012, 20 classes, then background, which stands for others',
    vocabulary='voc_20b',
    ignored=(255,),
    **_VOC,
  ),
  'voc_21': Layout(
    title='Pascal VOC 2012, background, then 20 classes',
    vocabulary='voc_21',
    ignored=(255,),
    **_VOC,
  ),
}
