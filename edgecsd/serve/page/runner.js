// One back end, measured in a frame of its own: cold start, then a warm series over photos whose embeddings are known.
// Parameters: backend, threads, runs, seconds. Tells the parent {doing: text}, at the end {measured: report fields}.

import { loadEngine } from "./engine.js";
import { decode, preprocess } from "./pixels.js";
import { ask } from "./server.js";

const MOST_RUNS = 5000;
const WARM_UP = { runs: 10, milliseconds: 1000, mostRuns: 200, mostMilliseconds: 10000, tolerance: 0.05 };
const parameters = new URLSearchParams(location.search);
const tell = (doing) => parent.postMessage({ doing }, location.origin);
const rest = () => new Promise((resolve) => setTimeout(resolve)); // lets the page paint what it was told

async function run() {
  const about = await (await ask("/about")).json();
  const engine = await loadEngine(about, parameters.get("backend"), Number(parameters.get("threads")), tell);
  const { photos, decodeMs } = await goldenPhotos(about);
  const first = await timed(engine, photos[0]);
  const embeddings = [];
  for (const pixels of photos) embeddings.push([...(await engine.embed(pixels))]);
  tell("warming up");
  const warmUp = await warmedUp(engine, photos);
  const wallMs = await series(engine, photos, Number(parameters.get("runs")), Number(parameters.get("seconds")) * 1000);
  return {
    import_ms: engine.importMs, load_ms: engine.loadMs, first_ms: first,
    cold_ms: engine.importMs + engine.loadMs + first, ...warmUp, wall_ms: wallMs, decode_ms: decodeMs, embeddings,
  };
}

async function goldenPhotos(about) {
  const photos = [];
  const decodeMs = [];
  for (const path of about.golden) {
    const blob = await (await ask(path)).blob();
    const begun = performance.now();
    const { rgba, width, height } = await decode(blob);
    photos.push(preprocess(rgba, width, height, about.model.contract));
    decodeMs.push(performance.now() - begun);
  }
  return { photos, decodeMs };
}

async function timed(engine, pixels) {
  const begun = performance.now();
  await engine.embed(pixels);
  return performance.now() - begun;
}

// At least 10 runs and 1 s, until the median of the last 10 is near that of the 10 before.
async function warmedUp(engine, photos) {
  const times = [];
  const begun = performance.now();
  for (;;) {
    times.push(await timed(engine, photos[times.length % photos.length]));
    const elapsed = performance.now() - begun;
    const enough = times.length >= 2 * WARM_UP.runs && elapsed >= WARM_UP.milliseconds;
    const settled = enough && near(median(times.slice(-20, -10)), median(times.slice(-10)));
    if (settled || times.length >= WARM_UP.mostRuns || elapsed >= WARM_UP.mostMilliseconds) {
      return { warmup_runs: times.length, warmup_settled: settled };
    }
    if (times.length % 10 === 0) await rest();
  }
}

const near = (before, now) => Math.abs(now / before - 1) <= WARM_UP.tolerance;
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

async function series(engine, photos, runs, milliseconds) {
  const times = [];
  const begun = performance.now();
  while (times.length < MOST_RUNS && (times.length < runs || performance.now() - begun < milliseconds)) {
    times.push(await timed(engine, photos[times.length % photos.length]));
    if (times.length % 10 === 0) {
      tell(`${times.length} runs`);
      await rest();
    }
  }
  return times;
}

run()
  .catch((error) => ({ failure: String(error.message ?? error).slice(0, 400) || "unknown" }))
  .then((measured) => parent.postMessage({ measured }, location.origin));
