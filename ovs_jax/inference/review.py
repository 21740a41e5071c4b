"""One page with all photos of a run, the doubtful ones first."""

import html
import pathlib
import urllib.parse
from collections.abc import Mapping
from typing import Any

from ovs_jax.core.files import Path, Place, place, read_json, write_text
from ovs_jax.inference.files import Outputs
from ovs_jax.ops.fonts import drawable
from ovs_jax.ops.overlay import percent

_LEAST = 0.01  # share of the picture from which a segment's doubt counts
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Segmented photographs</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.4 sans-serif; margin: 1.5rem; color: #222; background: #f6f6f6 }}
main {{ display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)) }}
figure {{ margin: 0; padding: .7rem; background: #fff; border: 1px solid #ddd }}
img {{ width: 100% }} figcaption {{ overflow-wrap: anywhere }}
td {{ padding-right: 1rem }} td + td {{ text-align: right; white-space: nowrap }}
</style></head><body>
<h1>{count} photographs, the least sure first</h1>
<p>Confidence is the name's share of the evidence of all names and of "nothing";
margin, by how much that exceeds the share of the second name.
The number above a picture is that of its least sure segment of 1 % or more.</p>
<main>
{figures}
</main></body></html>
"""


def doubt(record: Mapping[str, Any]) -> float:
  """Returns how doubtful a photo's result is, 0..1.

  It is 1 less the confidence of the least sure segment that covers 1 % of the picture,
  or of all if they are smaller; 1 if nothing was found.
  """
  segments = record['segments']
  large = [s for s in segments if s['share'] >= _LEAST] or segments
  return 1 - min((s['confidence'] for s in large), default=0.0)


def write_review(jobs: Mapping[pathlib.Path, Outputs], output: Path) -> Place:
  """Writes review.html; returns it.

  Args:
    jobs: photos whose results are there.
    output: directory of the results.
  """
  records = [(read_json(job.segments), job) for job in jobs.values()]
  records.sort(key=lambda pair: -doubt(pair[0]))
  figures = '\n'.join(_figure(record, job) for record, job in records)
  path = place(output) / 'review.html'
  write_text(path, _PAGE.format(count=len(records), figures=figures))
  return path


def _figure(record: Mapping[str, Any], outputs: Outputs) -> str:
  rows = ''.join(
    f'<tr><td>{html.escape(drawable(s["name"]))}</td><td>{percent(s["share"])}</td>'
    f'<td>{s["confidence"]:.2f}</td><td>{s["margin"]:.2f}</td></tr>'
    for s in record['segments']
  )
  title = html.escape(drawable(record['image']))
  link = urllib.parse.quote(outputs.overlay.name)
  return (
    f'<figure><figcaption><b>{1 - doubt(record):.2f}</b> {title}</figcaption>'
    f'<a href="{link}"><img src="{link}" alt="{title}" loading="lazy"></a>'
    f'<table><tr><td>name</td><td>share</td><td>confidence</td><td>margin</td></tr>{rows}</table>'
    '</figure>'
  )
