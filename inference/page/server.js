/** The network on the server, for browsers that cannot run it. Pictures are sent there. */

import { encode, decode } from "./photo.js";
import { stopped } from "./engine.js";

const TRIES = 4;
const READ_BY_SERVER = ["image/jpeg", "image/png", "image/webp"];

/** Paints by POST v1/stylize. */
export class ServerPainter {
  constructor(pack) {
    this.local = false;
    this.rate = 0;
    this.files = [];
    this.pack = pack;
    this.line = Promise.resolve();
  }

  get label() {
    return location.host;
  }

  async open(pack) {
    this.pack = pack;
  }

  close() {}

  /** As BrowserPainter.paint, one request at a time; `file` is the file that `picture` was read from, whole. */
  async paint(picture, look, { signal, file } = {}) {
    const body = READ_BY_SERVER.includes(file?.type) ? file : await encode(picture, "image/png");
    const started = performance.now();
    const painted = await decode(await this.request(body, look, signal));
    const rate = (picture.width * picture.height * 1000) / (performance.now() - started);
    this.rate = this.rate ? 0.7 * this.rate + 0.3 * rate : rate;
    return painted;
  }

  async request(body, look, signal) {
    const before = this.line;
    let done;
    this.line = new Promise((resolve) => (done = resolve));
    try {
      await before;
      return await this.send(body, look, signal);
    } finally {
      done();
    }
  }

  async send(body, look, signal) {
    const query = new URLSearchParams({
      style: look.mixture.map(([name, share]) => `${name}:${share.toFixed(4)}`).join(","),
      strength: look.strength.toFixed(3),
      color: `luminance:${look.colours.toFixed(3)}`,
      pack: this.pack.name,
      format: "png",
    });
    for (let attempt = 1; ; attempt++) {
      if (signal?.aborted) throw stopped();
      const response = await fetch(new URL(`v1/stylize?${query}`, document.baseURI), {
        method: "POST",
        headers: { "Content-Type": body.type || "application/octet-stream" },
        body,
        signal,
      });
      if (response.ok) return response.blob();
      const busy = response.status === 429 || response.status === 503;
      if (!busy || attempt === TRIES) {
        throw Object.assign(new Error(await reason(response)), { status: response.status });
      }
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(seconds, 10)));
    }
  }
}

async function reason(response) {
  try {
    const { title, detail } = await response.json();
    return detail || title;
  } catch {
    return `the server answered ${response.status}`;
  }
}
