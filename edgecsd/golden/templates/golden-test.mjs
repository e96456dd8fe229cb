// Does the app compute what @NAME@ must give? Written by edgecsd golden; needs no library.
//
//   import { goldenTest } from "./golden/selftest/golden-test.mjs";
//   const load = async (name) => (await fetch(`golden/${name}`)).arrayBuffer(); // a file of the pack
//   const result = await goldenTest(app, load);
//   if (!result.passed) throw new Error(result.lines.join("\n"));
//
// The app implements (each may be async; the last two may be left out):
//   preprocess(photo: Uint8Array) -> Uint8Array   encoded photo -> @SIZE@ x @SIZE@ x 3, RGB, rows from the top, 0 to 255
//   embed(tensor: Uint8Array) -> Float32Array      that array through the file -> @DIM@ numbers
//   decode(photo: Uint8Array) -> {rgba, width, height}    upright pixels: tells wrong decoding from wrong resizing
//   search(embedding: Float32Array, k: number) -> [string]    ids from the index, best first

const ARTIFACT = "@SHA256@"; // SHA-256 of the file that this pack is of
const EXPLAINED = 0.25; // a mistake explains a deviation if it leaves at most this share of it
const STAGES = {
  decoding: "the decoder: orientation, channel order, or a colour profile that was applied",
  preprocessing: "the decoding above; if that passed, resize, crop or channel order are not the pixel contract in golden.json",
  runtime: "the runtime: another file, a delegate in low precision, or an input of another layout or range",
  "end to end": "the preprocessing above; if that passed, the tensor changes between preprocess and embed",
  results: "the index or its search parameters; or an embedding above",
};

export async function goldenTest(app, load) {
  const pack = JSON.parse(new TextDecoder().decode(await load("golden.json")));
  if (pack.artifact.sha256 !== ARTIFACT) throw new Error("this self-test and golden.json are of two different packs");
  const { tolerances, mistakes, grid, k } = pack;
  const size = pack.artifact.metadata.preprocess.size;
  const stages = new Map();
  const note = (stage, photo, right, figure, cause = "") => {
    if (!stages.has(stage)) stages.set(stage, []);
    stages.get(stage).push({ photo, right, figure, cause });
  };
  const pixelErrors = new Explanation(mistakes);
  const vectorErrors = new Explanation(mistakes);
  const overlaps = [];
  for (const item of pack.items) {
    const [photo, wanted, samples] = (await all(load, item.photo, item.tensor, item.samples)).map(bytes);
    const [expected, mistaken] = (await all(load, item.embedding, item.mistaken)).map((data) => new Float32Array(data));
    const sample = (place) => samples.subarray(place * grid * grid * 3, (place + 1) * grid * grid * 3);

    if (app.decode) {
      const { rgba, width, height } = await app.decode(photo);
      const turned = item.orientation === 1 ? "" : `EXIF orientation ${item.orientation} ignored or misapplied`;
      const right = width === item.width && height === item.height;
      const error = right ? difference(sampled(rgba, width, height, 4, grid), sample(0)).mean : Infinity;
      const shown = `${width} x ${height}, expected ${item.width} x ${item.height}, difference ${error.toFixed(2)}`;
      note("decoding", item.photo, error <= tolerances.decoded_mean, shown, turned);
    }

    const tensor = await app.preprocess(photo);
    const fits = tensor.length === wanted.length;
    const { mean, most } = fits ? difference(tensor, wanted) : { mean: Infinity, most: 255 };
    const near = mean <= tolerances.tensor_mean && most <= tolerances.tensor_max;
    const shown = `${tensor.length} bytes, mean difference ${mean.toFixed(3)}, largest ${most}`;
    note("preprocessing", item.photo, near, shown);
    if (fits && !near) {
      const own = sampled(tensor, size, size, 3, grid);
      pixelErrors.add(difference(own, sample(1)).mean, (m) => difference(own, sample(m + 2)).mean);
    }

    const given = await app.embed(wanted.slice());
    const alike = cosine(given, expected);
    const furthest = Math.max(...expected.map((value, i) => Math.abs(value - given[i])));
    const exact = tolerances.max_difference === null || furthest <= tolerances.max_difference;
    const long = Math.abs(Math.hypot(...given) - 1) <= tolerances.norm_error;
    const same = alike >= tolerances.cosine && long && exact;
    note("runtime", item.photo, same, `cosine ${alike.toFixed(6)}, length ${Math.hypot(...given).toFixed(4)}`);
    if (!same) {
      const { length } = expected;
      vectorErrors.add(1 - alike, (m) => 1 - cosine(given, mistaken.subarray(m * length, (m + 1) * length)));
    }

    const own = fits ? await app.embed(tensor) : given.map(() => NaN);
    const through = cosine(own, expected);
    note("end to end", item.photo, through >= tolerances.end_to_end_cosine, `cosine ${through.toFixed(6)}`);

    if (app.search && item.ids.length) {
      const found = new Set((await app.search(own, k)).slice(0, k));
      overlaps.push(item.ids.filter((id) => found.has(id)).length / item.ids.length);
    }
  }
  if (overlaps.length) {
    const overlap = overlaps.reduce((a, b) => a + b) / overlaps.length;
    note("results", "all photos", overlap >= tolerances.overlap, `overlap@${k} ${overlap.toFixed(3)}`);
  }
  return report(stages, {
    preprocessing: pixelErrors.nearest(tolerances.tensor_mean),
    runtime: vectorErrors.nearest(1 - tolerances.cosine),
  });
}

// {passed, lines, failed: [stage], causes: {stage: text}}
function report(stages, explained) {
  const lines = [];
  const causes = {};
  for (const [stage, notes] of stages) {
    const wrong = notes.filter((each) => !each.right);
    lines.push(`${wrong.length ? "FAIL" : "pass"}  ${stage}: ${notes.length - wrong.length} of ${notes.length}`);
    if (wrong.length === 0) continue;
    const cause = explained[stage] || (wrong.every((each) => each.cause) ? wrong[0].cause : "");
    causes[stage] = cause ? `this looks like: ${cause}` : STAGES[stage];
    lines.push(`      ${causes[stage]}`, ...wrong.map((each) => `      ${each.photo}: ${each.figure}`));
  }
  const failed = Object.keys(causes);
  return { passed: failed.length === 0, lines, failed, causes };
}

// Sums, over the photos that are wrong, how far the app's values are from the right ones and from each mistake's.
class Explanation {
  constructor(names) {
    this.names = names;
    this.right = 0;
    this.mistaken = names.map(() => 0);
    this.count = 0;
  }

  add(right, distance) {
    this.right += right;
    this.names.forEach((_, m) => (this.mistaken[m] += distance(m)));
    this.count += 1;
  }

  nearest(tolerance) {
    if (this.count === 0) return "";
    const least = Math.min(...this.mistaken);
    const clear = least <= EXPLAINED * this.right || (least < this.right / 2 && least <= tolerance * this.count);
    return clear ? this.names[this.mistaken.indexOf(least)] : "";
  }
}

const all = (load, ...names) => Promise.all(names.map(load));
const bytes = (data) => new Uint8Array(data);

// The RGB values at grid x grid places, rows and columns floor((i + 0.5) side / grid).
function sampled(pixels, width, height, channels, grid) {
  const out = [];
  for (let y = 0; y < grid; y++) {
    for (let x = 0; x < grid; x++) {
      const row = Math.floor(((2 * y + 1) * height) / (2 * grid));
      const at = (row * width + Math.floor(((2 * x + 1) * width) / (2 * grid))) * channels;
      out.push(pixels[at], pixels[at + 1], pixels[at + 2]);
    }
  }
  return out;
}

function difference(one, other) {
  let [sum, most] = [0, 0];
  for (let i = 0; i < other.length; i++) {
    const error = Math.abs(one[i] - other[i]);
    sum += error;
    most = Math.max(most, error);
  }
  return { mean: sum / other.length, most };
}

// NaN, which fails every comparison, for vectors of another length, of zeros, or with anything that is not finite.
function cosine(one, other) {
  if (one.length !== other.length) return NaN;
  let [dot, a, b] = [0, 0, 0];
  for (let i = 0; i < other.length; i++) {
    dot += one[i] * other[i];
    a += one[i] * one[i];
    b += other[i] * other[i];
  }
  return dot / Math.sqrt(a * b);
}
