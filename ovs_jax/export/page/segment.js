// An exported model: its programs by onnxruntime-web, and what run.py does around them.
import { painted, resized, sizeFor } from './pixels.js';
import { Tokenizer } from './tokenizer.js';

const FORMAT = 1; // of the manifests that are read here

export class Segmenter {
  // ort: onnxruntime-web. read: gives a file of the folder as a Response, by its name.
  constructor(ort, read, about, tokenizer) {
    Object.assign(this, { ort, read, about, tokenizer });
    this.sessions = new Map();
    this.rows = new Map(); // embeddings of names that were asked before
  }

  static async open(ort, read) {
    const about = await (await read('manifest.json')).json();
    if (about.format > FORMAT) {
      throw new Error('The model is newer than this page; export both again.');
    }
    const tokenizer = new Tokenizer(await (await read('tokenizer.json')).json());
    return new Segmenter(ort, read, about, tokenizer);
  }

  // Loads what a square photo needs and runs it once, which compiles it; programs for
  // other shapes come with their first photo.
  async warm() {
    const side = this.about.photo.shortest;
    const data = new Uint8Array(side * side * 4);
    const encoded = await this.encode({ data, height: side, width: side });
    await this.label(encoded, [this.about.names.others], 1, 1);
  }

  async session(name) {
    if (!this.sessions.has(name)) {
      const bytes = await (await this.read(`models/${name}.onnx`)).arrayBuffer();
      const options = { executionProviders: ['wasm'], logSeverityLevel: 3 };
      const created = this.ort.InferenceSession.create(new Uint8Array(bytes), options);
      this.sessions.set(name, await created);
    }
    return this.sessions.get(name);
  }

  // Runs a program; feeds: tensors by the names of the manifest.
  async call(name, feeds) {
    const session = await this.session(name);
    const named = Object.entries(feeds).map(([key, value]) => [`in_${key}`, value]);
    return session.run(Object.fromEntries(named));
  }

  floats(data, ...dims) {
    return new this.ort.Tensor('float32', data, dims);
  }

  // Returns the masks of a photo {data, height, width} of RGBA, and what is known of them.
  async encode(photo) {
    const { shortest, longest, sizes, fill } = this.about.photo;
    const [h, w] = sizeFor(photo.height, photo.width, shortest, longest);
    const fits = sizes.filter((size) => size[0] >= h && size[1] >= w);
    if (!fits.length) {
      const shape = `${photo.width} x ${photo.height}`;
      throw new Error(`A photo of ${shape} is too long and narrow for this model; crop it.`);
    }
    fits.sort((a, b) => a[0] * a[1] - b[0] * b[1]);
    const full = fits[0];
    const small = resized(photo, h, w);
    const padded = new Float32Array(full[0] * full[1] * 3);
    for (let i = 0; i < padded.length; i++) padded[i] = fill[i % 3];
    for (let y = 0; y < h; y++) {
      padded.set(small.subarray(y * w * 3, (y + 1) * w * 3), y * full[1] * 3);
    }
    const inside = [h, w];
    const found = await this.call(`image_${full[0]}x${full[1]}`, {
      photo: this.floats(padded, ...full, 3),
      inside: new this.ort.Tensor('int32', Int32Array.from(inside), [2]),
    });
    return { found, full, inside };
  }

  // Makes sure that each name has a row of length 1: the mean over the templates.
  async embed(names) {
    const { templates, whole, width: size } = this.about.names;
    const fresh = [...new Set(names)].filter((name) => !this.rows.has(name));
    const ids = fresh.flatMap((name) =>
      templates.map((t) => this.tokenizer.encode(t.replaceAll('{}', () => name))),
    );
    if (!ids.length) return;
    const most = this.tokenizer.about.length;
    const longest = Math.max(...ids.map((one) => one.length));
    const width = whole ? most : Math.min(Math.ceil(longest / 8) * 8, most);
    const rows = [];
    for (let start = 0; start < ids.length; start += 256) {
      const some = ids.slice(start, start + 256);
      const tokens = new Int32Array(some.length * width);
      some.forEach((one, i) => tokens.set(one, i * width));
      const tensor = new this.ort.Tensor('int32', tokens, [some.length, width]);
      const { embeddings } = await this.call('text', { tokens: tensor });
      some.forEach((_, i) => rows.push(embeddings.data.slice(i * size, (i + 1) * size)));
    }
    fresh.forEach((name, i) => {
      const own = rows.slice(i * templates.length, (i + 1) * templates.length);
      const mean = own[0].map((_, d) => own.reduce((sum, row) => sum + row[d], 0) / own.length);
      const length = Math.hypot(...mean);
      this.rows.set(name, mean.map((x) => x / length));
    });
  }

  // Returns labels, -1 for no name, and confidence of a grid of pixels over the photo.
  async label(encoded, names, height, width) {
    const { others, width: size } = this.about.names;
    const alone = names.length === 1 && names[0].toLowerCase() !== others;
    const asked = alone ? [...names, others] : names;
    await this.embed(asked);
    const count = asked.length;
    const rows = new Float32Array(count * size);
    asked.forEach((name, i) => rows.set(this.rows.get(name), i * size));
    const real = new this.ort.Tensor('bool', new Uint8Array(count).fill(1), [count]);
    const feeds = { ...encoded.found, names: this.floats(rows, count, size), real };
    const { maps } = await this.call('maps', feeds);
    const grid = { height, width, named: names.length };
    return painted(maps.data, count, encoded.full, encoded.inside, grid);
  }
}
