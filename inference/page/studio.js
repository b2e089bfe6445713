/** What is painted when: a small preview at once, then the picture as shown and thumbnails, full size to save. */

const PREVIEW = { seconds: 0.15, least: 192 ** 2, most: 640 ** 2 };
const SHOWN = { seconds: 4, least: 512 ** 2, most: 1400 ** 2 };
const THUMBNAIL = 160;
/** Milliseconds without a change after which the picture is painted as shown. */
const REST = 180;
/** What is tried where a painting is too large for the memory: half the pixels, and so on. */
const SMALLER = 0.5;
const TRIES = 5;

/**
 * Keeps a photo painted in a look.
 *
 * `show` is told of everything: `painted(picture, settled, seconds)`, `thumbnail(style, picture)`, `busy(boolean)`
 * and `failed(error)`.
 */
export class Studio {
  constructor(show) {
    this.show = show;
    this.version = 0;
    this.shownVersion = 0;
    this.shownLimit = SHOWN.most;
    this.paused = true;
  }

  /** Paint with another painter, or another pack of it. */
  setPainter(painter, pack) {
    this.painter = painter;
    this.pack = pack;
  }

  /** Paint another photo. */
  setPhoto(photo) {
    this.photo = photo;
    this.result = null;
    this.shownLimit = SHOWN.most;
  }

  /** Paint in another look: `{mixture, strength, colours}` as BrowserPainter.paint takes it. */
  setLook(look) {
    this.look = look;
    if (!this.paused) this.repaint();
  }

  /** Paint the photo and all thumbnails. */
  start() {
    this.paused = false;
    this.repaint();
    this.paintThumbnails();
  }

  /** Stop all that goes on. */
  pause() {
    this.paused = true;
    this.version++;
    clearTimeout(this.timer);
    this.settling?.abort();
    this.thumbnails?.abort();
    this.show.busy(false);
  }

  /** The size of the picture that is painted once nothing changes any more. */
  get shownSize() {
    return this.photo.sizeWithin(Math.min(this.shownLimit, bounded(SHOWN, this.painter.rate)));
  }

  repaint() {
    this.version++;
    this.settling?.abort();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.settle(), REST);
    this.show.busy(true);
    this.preview();
  }

  /** Paint small versions, one at a time, until one has the newest look. */
  async preview() {
    this.again = true;
    if (this.previewing) return;
    this.previewing = true;
    try {
      while (this.again && !this.paused) {
        this.again = false;
        const { version, photo, look } = this;
        const picture = photo.pixels(...photo.sizeWithin(bounded(PREVIEW, this.painter.rate)));
        const painted = await this.painter.paint(picture, look, { urgent: true });
        if (photo === this.photo && version > this.shownVersion && !this.paused) this.show.painted(painted, false);
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.previewing = false;
    }
  }

  async settle() {
    const { version, photo, look } = this;
    this.settling = new AbortController();
    const { signal } = this.settling;
    try {
      const started = performance.now();
      const size = this.shownSize;
      const picture = await this.painter.paint(photo.pixels(...size), look, { lane: "large", signal });
      if (version !== this.version) return;
      this.shownVersion = version;
      this.result = { version, picture };
      this.show.painted(picture, true, (performance.now() - started) / 1000);
    } catch (error) {
      if (version !== this.version) return;
      if (this.smallerHelps(error) && this.shownLimit * SMALLER > SHOWN.least) {
        this.shownLimit *= SMALLER;
        return void this.settle();
      }
      this.fail(error);
    } finally {
      if (version === this.version && this.settling.signal === signal) this.show.busy(false);
    }
  }

  async paintThumbnails() {
    this.thumbnails?.abort();
    this.thumbnails = new AbortController();
    const { signal } = this.thumbnails;
    try {
      const square = this.photo.square(Math.min(THUMBNAIL, this.photo.width, this.photo.height));
      for (const { name } of this.pack.styles) {
        const look = { mixture: [[name, 1]], strength: 1, colours: 0 };
        this.show.thumbnail(name, await this.painter.paint(square, look, { signal }));
      }
    } catch (error) {
      this.fail(error);
    }
  }

  /**
   * The painting at the photo's own size, or at the largest that can be painted.
   *
   * @param {AbortSignal} signal ends it
   * @returns {Promise<ImageData>}
   */
  async paintFull(signal) {
    const { photo, look, result, version } = this;
    if (this.isCurrent(result) && result.picture.width === photo.width) return result.picture;
    let failure;
    for (let pixels = photo.width * photo.height, tries = 0; tries < TRIES; pixels *= SMALLER, tries++) {
      try {
        const file = tries === 0 ? photo.file : undefined;
        const picture = photo.pixels(...photo.sizeWithin(pixels));
        const painted = await this.painter.paint(picture, look, { lane: "large", signal, file });
        if (version === this.version) this.result = { version, picture: painted };
        return painted;
      } catch (error) {
        if (signal.aborted || !this.smallerHelps(error)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  /** The painting as shown, waiting for it if need be. */
  async paintShown(signal) {
    if (this.isCurrent(this.result)) return this.result.picture;
    return this.painter.paint(this.photo.pixels(...this.shownSize), this.look, { lane: "large", signal });
  }

  /** Whether a painting failed for its size: for want of memory here, or past the limit of the server. */
  smallerHelps(error) {
    return error.name !== "AbortError" && (this.painter.local || error.status === 413);
  }

  isCurrent(result) {
    return result?.version === this.version;
  }

  fail(error) {
    if (error.name !== "AbortError") this.show.failed(error);
  }
}

/** The pixels that a rate paints in that time, in few steps: the size is not to change with every measurement. */
function bounded({ seconds, least, most }, rate) {
  const step = 2 ** Math.floor(Math.log2(Math.max(1, rate * seconds)));
  return Math.min(most, Math.max(least, step));
}
