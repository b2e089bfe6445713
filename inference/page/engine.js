/** The network in this browser: workers that run a pack's paint.onnx with onnxruntime-web. */

const RUNTIME = new URL("ort/", document.baseURI).href;
const BACKENDS = {
  webgpu: {
    files: ["ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"],
    label: () => "WebGPU",
  },
  wasm: {
    files: ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"],
    label: (threads) => (threads > 1 ? `WebAssembly, ${threads} threads` : "WebAssembly, 1 thread"),
  },
};
const MOST_THREADS = 8;
/** Above this a worker's memory is given back when it has painted. */
const LARGE_PIXELS = 2e6;

/** What the page gets when it takes back a painting that it had asked for. */
export function stopped() {
  return new DOMException("Stopped", "AbortError");
}

/** A worker with one session. Jobs wait in line, the urgent first. */
class Lane {
  constructor(options) {
    this.options = options;
    this.waiting = [];
    this.running = null;
    this.replies = new Map();
    this.count = 0;
    this.worker = null;
  }

  /** Start the worker, unless it is there, and open the model in it. */
  open() {
    if (this.opening) return this.opening;
    this.worker = new Worker(new URL("painter-worker.js", import.meta.url), { type: "module" });
    this.worker.addEventListener("message", ({ data }) => this.answer(data.id, data.error, data.result));
    this.worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.close(new Error(event.message || "the worker could not be loaded"));
    });
    this.opening = this.send({ action: "open", ...this.options });
    return this.opening;
  }

  /** End the worker and what runs in it; the next job starts another. */
  close(reason) {
    this.worker?.terminate();
    this.worker = this.opening = null;
    for (const id of [...this.replies.keys()]) this.answer(id, reason);
  }

  /** Paint when the line has come to this job. With `urgent` before all that waits. */
  paint(job, { signal, urgent = false, ends = false } = {}) {
    return new Promise((resolve, reject) => {
      const entry = { job, resolve, reject, signal };
      if (signal?.aborted) return reject(stopped());
      signal?.addEventListener("abort", () => {
        reject(stopped());
        this.waiting = this.waiting.filter((other) => other !== entry);
        if (ends && this.running === entry) this.close(stopped());
      });
      if (urgent) this.waiting.unshift(entry);
      else this.waiting.push(entry);
      this.next();
    });
  }

  async next() {
    if (this.running || this.waiting.length === 0) return;
    const entry = (this.running = this.waiting.shift());
    try {
      await this.open();
      if (entry.signal?.aborted) throw stopped();
      const started = performance.now();
      const pixels = entry.job.pixels.slice(0);
      const { pixels: painted } = await this.send({ action: "paint", ...entry.job, pixels }, [pixels]);
      entry.resolve({ pixels: painted, seconds: (performance.now() - started) / 1000 });
    } catch (error) {
      if (error.name !== "AbortError") this.close(error);
      entry.reject(error);
    } finally {
      this.running = null;
      this.next();
    }
  }

  send(message, transfer = []) {
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.replies.set(id, { resolve, reject });
      this.worker.postMessage({ id, ...message }, transfer);
    });
  }

  answer(id, error, result) {
    const reply = this.replies.get(id);
    this.replies.delete(id);
    if (error) reply?.reject(error instanceof Error ? error : new Error(error));
    else reply?.resolve(result);
  }
}

/** Paints in this browser. Nothing is sent anywhere. */
export class BrowserPainter {
  /**
   * @param {string} backend a key of BACKENDS
   * @param {number} threads of WebAssembly
   */
  constructor(backend, threads) {
    this.backend = backend;
    this.threads = threads;
    this.local = true;
    this.rate = 0;
    this.lanes = null;
  }

  /** What it runs on, in words. */
  get label() {
    return BACKENDS[this.backend].label(this.threads);
  }

  /** Addresses of all that it needs, to be kept for a visit without a connection. */
  get files() {
    return [...BACKENDS[this.backend].files.map((name) => RUNTIME + name), ...(this.model ? [this.model] : [])];
  }

  /** Open a pack. Throws where the model or the runtime cannot be loaded. */
  async open(pack) {
    const model = new URL(`.${pack.model}?sha256=${pack.sha256}`, document.baseURI).href;
    const response = await fetch(model);
    if (!response.ok) throw new Error(`the style pack could not be loaded (${response.status})`);
    const options = {
      module: RUNTIME + BACKENDS[this.backend].files[0],
      folder: RUNTIME,
      backend: this.backend,
      threads: this.threads,
      model: await response.arrayBuffer(),
    };
    this.close();
    this.model = model;
    this.pack = pack;
    this.lanes = { quick: new Lane(options), large: new Lane(options) };
    await this.lanes.quick.open();
  }

  close() {
    for (const lane of Object.values(this.lanes ?? {})) lane.close(stopped());
  }

  /**
   * Paint an ImageData.
   *
   * @param {ImageData} picture alpha is kept
   * @param {{mixture: [string, number][], strength: number, colours: number}} look styles with weights of sum 1; 0 to
   *   1; the share kept of the photo's colours, 0 to 1
   * @param {{lane: "quick" | "large", signal: AbortSignal, urgent: boolean}} options a stopped job on the large lane
   *   is broken off; on the quick one it ends, unseen
   * @returns {Promise<ImageData>}
   */
  async paint(picture, look, { lane = "quick", signal, urgent } = {}) {
    const { width, height } = picture;
    const shares = new Map(look.mixture);
    const weights = this.pack.styles.map(({ name }) => shares.get(name) ?? 0);
    const { strength, colours } = look;
    const job = { pixels: picture.data.buffer, width, height, weights, strength, colours };
    const { pixels, seconds } = await this.lanes[lane].paint(job, { signal, urgent, ends: lane === "large" });
    const rate = (width * height) / seconds;
    this.rate = this.rate ? 0.7 * this.rate + 0.3 * rate : rate;
    if (lane === "large" && width * height > LARGE_PIXELS) this.lanes.large.close(stopped());
    return new ImageData(new Uint8ClampedArray(pixels), width, height);
  }
}

/** The best painter whose runtime is served here, with `pack` open in it; throws where there is none. */
export async function openBrowserPainter(pack) {
  const backends = (await realGpu()) ? ["webgpu", "wasm"] : ["wasm"];
  let failure;
  for (const backend of backends) {
    const painter = new BrowserPainter(backend, backend === "wasm" ? usableThreads() : 1);
    try {
      await requireServed(BACKENDS[backend].files[0]);
      await painter.open(pack);
      await painter.paint(new ImageData(32, 32), { mixture: [[pack.styles[0].name, 1]], strength: 1, colours: 0 });
      painter.rate = 0;
      return painter;
    } catch (error) {
      painter.close();
      failure ??= error;
    }
  }
  throw failure;
}

/** Whether WebGPU is there and is a graphics card, not a processor that plays one. */
async function realGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  } catch {
    return false;
  }
}

function usableThreads() {
  return self.crossOriginIsolated ? Math.max(1, Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1)) : 1;
}

async function requireServed(file) {
  const response = await fetch(RUNTIME + file);
  if (!response.ok) throw new Error("this server carries no runtime for browsers");
}
