"""Reads a folder of formats with supervision, hotcoco and Label Studio's own converter.

It runs in an environment of its own, which lacks this package, and compares with the
truth in the folder `npz`. It prints what each reader said.
"""

import json
import pathlib
import sys

import cv2
import numpy as np
import supervision as sv
from hotcoco import COCO
from label_studio_sdk.converter.brush import decode_rle


def truth(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the label maps by stem."""
  return {p.stem: np.load(p)['labels'] for p in sorted((folder / 'npz').glob('*.npz'))}


def compare(
  what: str, found: dict[str, np.ndarray], want: dict[str, np.ndarray]
) -> None:
  """Says whether all label maps are equal."""
  assert found.keys() == want.keys(), (what, found.keys(), want.keys())
  for stem, labels in want.items():
    np.testing.assert_array_equal(found[stem], labels, err_msg=f'{what}: {stem}')
  print(f'{what}: {len(want)} photos equal')


def detections(dataset: sv.DetectionDataset, names: list[str]) -> dict[str, np.ndarray]:
  """Returns the label maps of a dataset of supervision."""
  found = {}
  for path, image, marks in dataset:
    labels = np.full(image.shape[:2], -1)
    for k, mask in zip(marks.class_id, marks.mask if len(marks) else [], strict=True):
      labels[mask] = names.index(dataset.classes[k])
    found[pathlib.Path(path).stem] = labels
  return found


def read_coco(folder: pathlib.Path, names: list[str]) -> None:
  """By supervision and by hotcoco, with areas and boxes."""
  file, photos = folder / 'coco' / 'annotations.json', folder / 'photos'
  dataset = sv.DetectionDataset.from_coco(str(photos), str(file), force_masks=True)
  compare('coco by supervision', detections(dataset, names), truth(folder))
  for _, _, marks in dataset:
    if len(marks):
      np.testing.assert_array_equal(marks.data['area'], marks.mask.sum(axis=(1, 2)))
      boxes = sv.mask_to_xyxy(marks.mask)
      np.testing.assert_array_equal(marks.xyxy, boxes + [0, 0, 1, 1])
  coco, found = COCO(str(file)), {}
  for image in coco.load_imgs(coco.get_img_ids()):
    labels = np.full((image['height'], image['width']), -1)
    for one in coco.load_anns(coco.get_ann_ids(img_ids=[image['id']])):
      mask = coco.ann_to_mask(one).astype(bool)
      assert one['area'] == mask.sum()
      labels[mask] = one['category_id'] - 1
    found[pathlib.Path(image['file_name']).stem] = labels
  compare('coco by hotcoco', found, truth(folder))


def read_yolo(folder: pathlib.Path, names: list[str]) -> None:
  """By supervision, and as Ultralytics does: coordinates in pixels are cut off."""
  yolo = folder / 'yolo'
  dataset = sv.DetectionDataset.from_yolo(
    str(yolo / 'images'),
    str(yolo / 'labels'),
    str(yolo / 'data.yaml'),
    force_masks=True,
  )
  compare('yolo by supervision', detections(dataset, names), truth(folder))
  found = {}
  for stem, want in truth(folder).items():
    labels = np.full(want.shape, -1, np.int32)
    for line in (yolo / 'labels' / f'{stem}.txt').read_text().splitlines():
      k, *numbers = line.split()
      points = np.array(numbers, np.float32).reshape(-1, 2) * want.shape[::-1]
      cv2.fillPoly(labels, [points.astype(np.int32)], int(k))
    found[stem] = labels
  compare('yolo by OpenCV', found, truth(folder))


def read_labelme(folder: pathlib.Path, names: list[str]) -> None:
  """By supervision."""
  dataset = sv.DetectionDataset.from_labelme(
    str(folder / 'photos'), str(folder / 'labelme'), force_masks=True
  )
  compare('labelme by supervision', detections(dataset, names), truth(folder))


def read_label_studio(folder: pathlib.Path, names: list[str]) -> None:
  """By its own converter."""
  found = {}
  for task in json.loads((folder / 'labelstudio' / 'tasks.json').read_text('utf-8')):
    stem = pathlib.Path(task['data']['image']).stem
    labels = np.full(truth(folder)[stem].shape, -1)
    for one in task['predictions'][0]['result']:
      channels = decode_rle(one['value']['rle']).reshape(*labels.shape, 4)
      assert set(np.unique(channels)) <= {0, 255}
      labels[channels[..., 3] > 0] = names.index(one['value']['brushlabels'][0])
    found[stem] = labels
  compare('labelstudio by its SDK', found, truth(folder))


if __name__ == '__main__':
  given = pathlib.Path(sys.argv[1])
  words = json.loads((given / 'png' / 'labels.json').read_text('utf-8'))['labels']
  for read in (read_coco, read_yolo, read_labelme, read_label_studio):
    read(given, [word['name'] for word in words])
