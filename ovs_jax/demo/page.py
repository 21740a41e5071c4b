"""The page itself: Gradio's boxes and buttons around the viewer in viewer.js."""

import base64
import html
import io
import json
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from ovs_jax.core.files import local
from ovs_jax.demo import visit as steps
from ovs_jax.demo.desk import Desk
from ovs_jax.demo.download import CHOICES
from ovs_jax.demo.limits import open_photo
from ovs_jax.demo.visit import BUSY, DONE, ERROR, Step, Visit

_HERE = local(__file__).parent
_NAMES = 'what to look for, such as: a cup, a lid\ncar: automobile, motor car'
_BACKGROUND = 'competes, but gets no colour: wall, floor'
# Whatever Gradio would fetch from elsewhere (fonts, scripts), the browser does not.
_POLICY = (
  "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
  "frame-ancestors 'self'; form-action 'self'"
)
# The box has its file a moment after the step that has it.
_FETCH = "() => setTimeout(() => document.querySelector('#ovs-zip').click(), 200)"


def build(
  desk: Desk,
  *,
  model: str,
  folder: pathlib.Path,
  examples: Sequence[pathlib.Path] = (),
  names: str = '',
) -> gr.Blocks:
  """Returns the page.

  Args:
    desk: of the model.
    model: what the page calls it.
    folder: where photos arrive and results are left to be fetched.
    examples: photos to try, in `folder`.
    names: that are in the box at first.
  """
  page = _Page(desk, folder, examples)
  with gr.Blocks(
    title='ovs_jax', analytics_enabled=False, delete_cache=(600, 3600)
  ) as (blocks):
    about = f'Any names, in your own words. Model: {html.escape(model)}'
    gr.HTML(f'<h1>Segment a photo by names</h1><p>{about}</p>', elem_id='ovs-title')
    visit = gr.State(Visit(), time_to_live=3600)
    with gr.Row(equal_height=True):
      asked = _box('Names', _NAMES, names, scale=5)
      behind = _box('Background', _BACKGROUND, '', scale=3)
      with gr.Column(scale=1, min_width=130, elem_id='ovs-buttons'):
        go = gr.Button('Segment', variant='primary', elem_id='ovs-go')
        stop = gr.Button('Stop', elem_id='ovs-stop')
    said = gr.HTML(_said(Step('', DONE)), elem_id='ovs-said')
    viewer = _viewer(page)
    file = gr.DownloadButton(visible='hidden', elem_id='ovs-zip')
    quiet: dict[str, Any] = {'show_progress': 'hidden', 'api_visibility': 'private'}
    work = {**quiet, 'concurrency_limit': desk.limits.waiting + 1, 'queue': True}
    typed, shown = [visit, asked, behind], [visit, said, viewer]
    running = [
      viewer.photo(page.photo, typed, shown, **work),
      viewer.example(page.example, typed, shown, **work),
    ]
    for start in (go.click, asked.submit, behind.submit):
      running.append(start(page.look, typed, shown, **work))
    fetch = viewer.download(page.take_home, [visit], [said, file], **work)
    fetch.then(None, js=_FETCH, **quiet)
    viewer.refused(page.refused, None, said, queue=False, **quiet)
    viewer.sending(page.sending, None, said, queue=False, **quiet)
    cancel = {'cancels': [*running, fetch], 'queue': False}
    stop.click(page.stopped, None, said, **cancel, **quiet)
  return blocks


def launch(
  blocks: gr.Blocks, desk: Desk, *, host: str, port: int | None, wait: bool = True
) -> str:
  """Serves the page; returns its address.

  Args:
    blocks: what `build` returned.
    desk: of the model.
    host: address of this machine to listen at.
    port: there; None takes the first free one from 7860 on.
    wait: whether to serve until the program is stopped.
  """
  blocks.queue(max_size=4 * (desk.limits.waiting + 1), api_open=False)
  font = ['system-ui', 'sans-serif']
  _, address, _ = blocks.launch(
    server_name=host,
    server_port=port,
    prevent_thread_lock=not wait,
    quiet=True,
    share=False,
    ssr_mode=False,
    footer_links=[],
    theme=gr.themes.Default(primary_hue='blue', font=font, font_mono=['monospace']),
    css_paths=_HERE / 'page.css',
    max_file_size=round(1e6 * desk.limits.megabytes),
    app_kwargs={'middleware': [Middleware(BaseHTTPMiddleware, dispatch=_strict)]},
  )
  return address


async def _strict(request: Request, call: Any) -> Response:
  """Tells browsers to load nothing from other machines."""
  response = await call(request)
  response.headers['Content-Security-Policy'] = _POLICY
  response.headers['Referrer-Policy'] = 'no-referrer'
  return response


class _Page:
  """What happens on the page; what Gradio calls yields values of its boxes."""

  def __init__(
    self, desk: Desk, folder: pathlib.Path, examples: Sequence[pathlib.Path]
  ) -> None:
    self.desk, self.folder, self.examples = desk, folder, examples

  def photo(
    self, visit: Visit, names: str, background: str, event: gr.EventData
  ) -> Iterator[Any]:
    """A photo was sent."""
    path = (event._data or {}).get('path', '')
    yield from self._take(visit, path, names, background)

  def example(
    self, visit: Visit, names: str, background: str, event: gr.EventData
  ) -> Iterator[Any]:
    """An example was chosen."""
    path = self.examples[int(event._data['index'])]
    yield from self._take(visit, str(path), names, background)

  def _take(
    self, visit: Visit, path: str, names: str, background: str
  ) -> Iterator[Any]:
    taken = False
    for step in steps.take(self.desk, visit, path, self.folder):
      taken = step.kind == DONE
      yield _shown(visit, step)
    if taken and names.strip():
      yield from self.look(visit, names, background)

  def look(self, visit: Visit, names: str, background: str) -> Iterator[Any]:
    """Names were asked for."""
    for step in steps.look(self.desk, visit, names, background):
      yield _shown(visit, step)

  def take_home(self, visit: Visit, event: gr.EventData) -> Iterator[Any]:
    """The results are to be downloaded."""
    want = event._data or {}
    options = {
      'chosen': [name for name in CHOICES if name in want.get('chosen', ())],
      'threshold': float(want.get('threshold', 0)),
      'alpha': float(want.get('alpha', 0.55)),
    }
    # One for each request: photos of several users may have one name. Gradio has
    # copied the file to where it serves from when it asks for the next step.
    with tempfile.TemporaryDirectory() as folder:
      for step in steps.take_home(self.desk, visit, local(folder), **options):
        yield _said(step), None if step.file is None else str(step.file)

  def refused(self, event: gr.EventData) -> str:
    """The browser did not send a file."""
    return _said(Step(str((event._data or {}).get('said', '')), ERROR))

  def sending(self, event: gr.EventData) -> str:
    """The browser sends a file."""
    return _said(Step(str((event._data or {}).get('said', '')), BUSY))

  def stopped(self) -> str:
    """The user gave up."""
    return _said(Step('stopped', DONE))


def _viewer(page: _Page) -> gr.HTML:
  limits = page.desk.limits
  setup = {
    'megabytes': limits.megabytes,
    'limits': f'up to {limits.megabytes} MB and {limits.megapixels} megapixels',
    'examples': [{'name': p.stem, 'image': _thumb(page, p)} for p in page.examples],
    'formats': CHOICES,
  }
  read = {
    kind: (_HERE / f'viewer.{kind}').read_text() for kind in ('html', 'css', 'js')
  }
  return gr.HTML(
    '',
    html_template=read['html'],
    css_template=read['css'],
    js_on_load=read['js'],
    apply_default_css=False,
    setup=json.dumps(setup),
    elem_id='ovs-viewer',
  )


def _box(label: str, hint: str, text: str, *, scale: int) -> gr.Textbox:
  return gr.Textbox(
    text,
    label=label,
    placeholder=hint,
    lines=2,
    max_lines=8,
    scale=scale,
    min_width=50 * scale,
    elem_id=f'ovs-{label.lower()}',
  )


def _thumb(page: _Page, path: pathlib.Path) -> str:
  image = Image.fromarray(open_photo(path, page.desk.limits))
  image.thumbnail((288, 144))
  file = io.BytesIO()
  image.save(file, 'jpeg', quality=85)
  return 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()


def _shown(visit: Visit, step: Step) -> tuple[Any, ...]:
  new = gr.skip() if step.view is None else json.dumps(step.view)
  return visit, _said(step), new


def _said(step: Step) -> str:
  role = 'alert' if step.kind == ERROR else 'status'
  return f'<p role="{role}" class="{step.kind}">{html.escape(step.said)}</p>'
