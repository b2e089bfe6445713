/** The camera: frames painted as they come. */

/** Seconds that a frame may take; the size of the frames follows from it. */
const FRAME_SECONDS = 0.11;
const SIDES = [128, 512];
/** Sides of frames are multiples of this, so that the size does not change with every measurement. */
const STEP = 32;
const AVERAGED = 12;

/** A running camera. */
export class Camera {
  constructor() {
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = true;
    this.canvas = document.createElement("canvas");
    this.devices = [];
    this.running = false;
  }

  /** Whether this browser gives pages a camera here (it does on https and on localhost). */
  static get possible() {
    return Boolean(navigator.mediaDevices?.getUserMedia);
  }

  /** Ask for the camera and start it. Throws an Error that says in a line why it does not. */
  async open(deviceId) {
    this.close();
    const video = {
      width: { ideal: 1280 },
      height: { ideal: 720 },
      ...(deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" }),
    };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
      this.video.srcObject = this.stream;
      await this.video.play();
    } catch (error) {
      this.close();
      throw new Error(reason(error));
    }
    const settings = this.stream.getVideoTracks()[0].getSettings();
    this.mirrored = settings.facingMode !== "environment";
    this.deviceId = settings.deviceId;
    this.devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    this.running = true;
  }

  /** The next of several cameras. */
  async turn() {
    const at = this.devices.findIndex(({ deviceId }) => deviceId === this.deviceId);
    await this.open(this.devices[(at + 1) % this.devices.length].deviceId);
  }

  close() {
    this.running = false;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = this.video.srcObject = null;
  }

  get size() {
    return [this.video.videoWidth, this.video.videoHeight];
  }

  /**
   * Paint frames until the camera is closed.
   *
   * @param {(frame: ImageData) => Promise<ImageData>} paint
   * @param {() => number} rate pixels a second that `paint` has shown so far; 0 for not known
   * @param {(frame: HTMLCanvasElement, painted: ImageData, perSecond: number) => void} show
   */
  async run(paint, rate, show) {
    const stream = this.stream;
    const times = [];
    while (this.running && this.stream === stream) {
      this.grab(this.canvas, this.frameSize(rate()));
      const { width, height } = this.canvas;
      const painted = await paint(this.canvas.getContext("2d").getImageData(0, 0, width, height));
      if (!this.running || this.stream !== stream) return;
      times.push(performance.now());
      if (times.length > AVERAGED) times.shift();
      const span = times.at(-1) - times[0];
      show(this.canvas, painted, span ? (1000 * (times.length - 1)) / span : 0);
      await new Promise(requestAnimationFrame);
    }
  }

  /** The frame of this moment at the camera's own size, as a file. */
  async still() {
    const canvas = document.createElement("canvas");
    this.grab(canvas, this.size);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    return new File([blob], "camera.png", { type: "image/png" });
  }

  frameSize(rate) {
    const [width, height] = this.size;
    const aspect = width / height;
    const wanted = rate ? Math.sqrt(rate * FRAME_SECONDS * Math.max(aspect, 1 / aspect)) : SIDES[0];
    const side = Math.min(SIDES[1], Math.max(SIDES[0], STEP * Math.round(wanted / STEP)));
    const scale = Math.min(1, side / Math.max(width, height));
    return [Math.round(width * scale), Math.round(height * scale)];
  }

  grab(canvas, [width, height]) {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (this.mirrored) context.setTransform(-1, 0, 0, 1, width, 0);
    context.drawImage(this.video, 0, 0, width, height);
  }
}

function reason(error) {
  if (error.name === "NotAllowedError")
    return "The browser was not allowed to use the camera; allow it for this page and try again.";
  if (error.name === "NotFoundError" || error.name === "OverconstrainedError") return "No camera was found.";
  if (error.name === "NotReadableError") return "Another program is using the camera.";
  return `The camera does not start: ${error.message}`;
}
