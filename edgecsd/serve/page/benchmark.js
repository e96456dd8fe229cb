// The benchmark tab: each back end in a frame of its own, so that every start is cold; results go to the server.
//
// export function benchmarkTab(about, page)      page: {tell, explain, forget}

import { threadsHere } from "./engine.js";
import { ask } from "./server.js";

const LENGTHS = { quick: { runs: 200, seconds: 10 }, short: { runs: 30, seconds: 0 } };
const at = (id) => document.getElementById(id);

export function benchmarkTab(about, page) {
  at("bench-model").textContent = about.model.name;
  at("bench-device").textContent = isolationText();
  at("measure").onclick = () => measureAll(about, page);
}

function isolationText() {
  if (self.crossOriginIsolated) return `${threadsHere()} threads can be used here.`;
  return "Threads cannot be used here: browsers allow them only over a secure connection (serve --tls).";
}

async function backends() {
  const threads = threadsHere();
  const found = [{ backend: "wasm", threads: 1 }];
  if (threads > 1) found.push({ backend: "wasm", threads });
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (adapter) found.push({ backend: "webgpu", threads: 1, gpu: gpuName(adapter) });
  return found;
}

function gpuName({ info }) {
  return [info?.vendor, info?.architecture, info?.description].filter(Boolean).join(" ").slice(0, 120) || "unnamed";
}

async function measureAll(about, page) {
  page.forget();
  at("measure").disabled = true;
  const body = at("bench-results").tBodies[0];
  body.replaceChildren();
  at("bench-results").hidden = true;
  try {
    for (const each of await backends()) {
      const name = each.backend === "wasm" ? `wasm, ${each.threads} thread${each.threads > 1 ? "s" : ""}` : "WebGPU";
      const report = await measure(about, each, LENGTHS[at("bench-length").value], (text) => page.tell(`${name}: ${text}`, true));
      page.tell(`${name}: reporting`, true);
      const answer = await ask("/bench", {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(report),
      });
      body.append(tableRow(name, await answer.json()));
      at("bench-results").hidden = false;
    }
    page.tell("Measured; the server's terminal has the figures too");
  } catch (error) {
    page.tell("Not measured to the end");
    page.explain(error.title ?? "The benchmark stopped", error.message, "Measure again", () => measureAll(about, page));
  } finally {
    at("measure").disabled = false;
  }
}

// Runs one back end in a new frame; resolves to the report for the server.
function measure(about, { backend, threads, gpu = "" }, { runs, seconds }, tell) {
  const frame = document.createElement("iframe");
  frame.title = "Benchmark";
  frame.tabIndex = -1;
  frame.allow = "cross-origin-isolated";
  frame.src = `/runner?${new URLSearchParams({ backend, threads, runs, seconds })}`;
  return new Promise((resolve) => {
    const listen = ({ source, data }) => {
      if (source !== frame.contentWindow) return;
      if (data.doing) tell(data.doing);
      if (!data.measured) return;
      removeEventListener("message", listen);
      frame.remove();
      resolve({ ...device(about), backend, threads, gpu, ...data.measured });
    };
    addEventListener("message", listen);
    document.body.append(frame);
  });
}

function device(about) {
  return {
    runtime: about.runtime, model_sha256: about.model.sha256, user_agent: navigator.userAgent.slice(0, 400),
    cores: navigator.hardwareConcurrency || null, memory_gb: navigator.deviceMemory || null,
    isolated: self.crossOriginIsolated, secure: self.isSecureContext, clock_us: clockStep(),
  };
}

// The smallest step of the clock that was seen, in microseconds: browsers make clocks coarse.
function clockStep() {
  let [step, last] = [Infinity, performance.now()];
  for (const end = last + 20; last < end; ) {
    const now = performance.now();
    if (now > last) [step, last] = [Math.min(step, now - last), now];
  }
  return step * 1000;
}

function tableRow(name, row) {
  const line = document.createElement("tr");
  const cell = (text, more = {}) => Object.assign(document.createElement("td"), { textContent: text, ...more });
  if (row.figures === null) line.append(cell(name), cell(`failed: ${row.reason}`, { colSpan: 4 }));
  else {
    const { cold_ms, p50_ms, p90_ms } = row.figures;
    line.append(cell(name), ...[cold_ms, p50_ms, p90_ms].map((ms) => cell(ms.toFixed(1))));
    line.append(cell(row.parity.cosine_min.toFixed(5)));
  }
  return line;
}
