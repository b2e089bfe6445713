/** A worker that runs one pack's paint.onnx with onnxruntime-web, one picture at a time. */

let runtime = null;
let session = null;

const actions = { open, paint };

self.addEventListener("message", async ({ data }) => {
  try {
    const { result, transfer } = await actions[data.action](data);
    self.postMessage({ id: data.id, result }, transfer);
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
});

/** Load the runtime's module and open the model. */
async function open({ module, folder, backend, threads, model }) {
  runtime = await import(module);
  runtime.env.wasm.wasmPaths = folder;
  runtime.env.wasm.numThreads = threads;
  runtime.env.logLevel = "error";
  session = await runtime.InferenceSession.create(new Uint8Array(model), {
    executionProviders: [backend],
    enableCpuMemArena: false,
    logSeverityLevel: 3,
  });
  return { result: {}, transfer: [] };
}

/** Paint RGBA pixels: the colours go through the network, alpha stays. */
async function paint({ pixels, width, height, weights, strength }) {
  const rgba = new Uint8ClampedArray(pixels);
  const count = width * height;
  const rgb = new Uint8Array(3 * count);
  for (let from = 0, to = 0; from < 4 * count; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  const feeds = {
    image: new runtime.Tensor("uint8", rgb, [1, height, width, 3]),
    style: new runtime.Tensor("float32", Float32Array.from(weights), [1, weights.length]),
    strength: new runtime.Tensor("float32", Float32Array.of(strength), [1]),
  };
  const { painted } = await session.run(feeds);
  const values = painted.data;
  for (let from = 0, to = 0; to < 4 * count; to += 4) {
    rgba[to] = values[from++];
    rgba[to + 1] = values[from++];
    rgba[to + 2] = values[from++];
  }
  painted.dispose();
  return { result: { pixels: rgba.buffer }, transfer: [rgba.buffer] };
}
