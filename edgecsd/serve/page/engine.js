// The exported file in the browser: onnxruntime-web for .onnx, LiteRT.js for .tflite.
//
// export function threadsHere() -> number      threads that WebAssembly may use; 1 unless the page is isolated
// export async function loadEngine(about, backend, threads, tell) -> {embed, importMs, loadMs}
//   about: the server's /about; backend: "wasm" or "webgpu"; tell(text): told what is being done.
//   embed(pixels: Uint8Array of size x size x 3) -> Promise<Float32Array of about.model.dim>

const MOST_THREADS = 4; // more than a phone has fast cores

export function threadsHere() {
  return self.crossOriginIsolated ? Math.max(1, Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1)) : 1;
}

export async function loadEngine(about, backend, threads, tell = () => {}) {
  const start = performance.now();
  tell(`Loading ${about.runtime}`);
  const load = about.model.target === "onnx" ? await onnx(about, backend, threads) : await litert(about, backend, threads);
  const imported = performance.now();
  tell(`Loading the model, ${(about.model.bytes / 1e6).toFixed(1)} MB`);
  const response = await fetch(about.model.path);
  if (!response.ok) throw new Error(`the model could not be fetched: status ${response.status}`);
  const embed = await load(new Uint8Array(await response.arrayBuffer()));
  return { embed, importMs: imported - start, loadMs: performance.now() - imported };
}

async function onnx(about, backend, threads) {
  const name = backend === "webgpu" ? "ort.webgpu" : "ort";
  const ort = await import(backend === "webgpu" ? "/runtime/ort.webgpu.mjs" : "/runtime/ort.wasm.mjs");
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { wasm: new URL(`/runtime/${name}.wasm`, location.href).href };
  const { size } = about.model.contract;
  return async (bytes) => {
    const session = await ort.InferenceSession.create(bytes, {
      executionProviders: [backend],
      graphOptimizationLevel: "all",
      extra: { session: sessionEntries(about.model.session_options) },
    });
    return async (pixels) => {
      const input = new ort.Tensor("uint8", pixels, [1, size, size, 3]);
      const { embedding } = await session.run({ image: input });
      return Float32Array.from(embedding.data);
    };
  };
}

// {"session.a": "1"} -> {"a": "1"}, as onnxruntime-web wants them
function sessionEntries(options) {
  return Object.fromEntries(Object.entries(options).map(([key, value]) => [key.replace(/^session\./, ""), value]));
}

async function litert(about, backend, threads) {
  const runtime = await import("/runtime/litert.js");
  await runtime.loadLiteRt("/runtime/", { threads: threads > 1 });
  const { size } = about.model.contract;
  return async (bytes) => {
    // Without a number LiteRT takes every core, and the benchmark would name another number than was used.
    const model = await runtime.loadAndCompile(bytes, { accelerator: backend, cpuOptions: { numThreads: threads } });
    return async (pixels) => {
      const input = new runtime.Tensor(pixels, [1, size, size, 3]);
      const outputs = await model.run(input);
      const output = backend === "wasm" ? outputs[0] : await outputs[0].moveTo("wasm");
      const embedding = Float32Array.from(output.toTypedArray());
      for (const tensor of new Set([input, output, ...outputs])) if (!tensor.deleted) tensor.delete();
      return embedding;
    };
  };
}
