/** The stage: photo and painting on top of each other, a divider between them, zoom and pan. */

const MOST_PHOTO_PIXELS = 16e6;
const STEP = 1.4;
const PAN_STEP = 60;
/** Pixels that a pointer moves before it drags. */
const SLACK = 4;

/** Shows one photo and its painting. */
export class Stage {
  /** @param {HTMLElement} root the element `#stage`, with what `index.html` puts in it */
  constructor(root) {
    const find = (name) => root.querySelector(`#${name}`);
    this.root = root;
    this.plane = find("plane");
    this.photo = find("photo");
    this.painted = find("painted");
    this.divider = find("divider");
    this.handle = find("handle");
    this.tags = [find("tag-photo"), find("tag-painted")];
    this.size = [1, 1];
    this.zoom = 1;
    this.offset = [0, 0];
    this.pointers = new Map();
    this.listen();
  }

  /** Show a photo, whole, without a painting. */
  setPhoto(photo) {
    this.resize(photo.width, photo.height);
    draw(this.photo, photo.bitmap, ...photo.sizeWithin(MOST_PHOTO_PIXELS));
    this.clear();
    this.fit();
  }

  /** Show a painting, of any size, over the photo. */
  setPainted(picture) {
    this.painted.width = picture.width;
    this.painted.height = picture.height;
    this.painted.getContext("2d").putImageData(picture, 0, 0);
    this.root.classList.remove("bare");
    this.arrange();
  }

  /** Take the painting away. */
  clear() {
    this.root.classList.add("bare");
  }

  /** Show a frame of the camera and its painting; they have one size. */
  setFrame(frame, painted, [width, height]) {
    if (this.size[0] !== width || this.size[1] !== height) {
      this.resize(width, height);
      this.fit();
    }
    draw(this.photo, frame, frame.width, frame.height);
    this.setPainted(painted);
  }

  /** Say what is to be seen. */
  describe(words) {
    this.painted.setAttribute("aria-label", words);
  }

  /** Screen pixels for a pixel of the photo. */
  get scale() {
    return this.fitScale * this.zoom * devicePixelRatio;
  }

  get fitScale() {
    return Math.min(this.root.clientWidth / this.size[0], this.root.clientHeight / this.size[1], 4);
  }

  get mostZoom() {
    return Math.max(4, 4 / (this.fitScale * devicePixelRatio));
  }

  fit() {
    this.zoom = 1;
    this.arrange();
  }

  /** One pixel of the photo to one of the screen; or back to the whole photo. */
  toggleActual() {
    if (this.zoom > 1) this.fit();
    else this.zoomTo(Math.max(2, 1 / (this.fitScale * devicePixelRatio)));
  }

  zoomIn() {
    this.zoomTo(this.zoom * STEP);
  }

  zoomOut() {
    this.zoomTo(this.zoom / STEP);
  }

  /** Zoom and keep the point at (x, y) of the stage where it is. */
  zoomTo(zoom, x = this.root.clientWidth / 2, y = this.root.clientHeight / 2) {
    const next = Math.min(this.mostZoom, Math.max(1, zoom));
    const change = next / this.zoom;
    this.offset = [x - (x - this.offset[0]) * change, y - (y - this.offset[1]) * change];
    this.zoom = next;
    this.arrange();
  }

  pan(dx, dy) {
    this.offset = [this.offset[0] + dx, this.offset[1] + dy];
    this.arrange();
  }

  resize(width, height) {
    this.size = [width, height];
    this.root.style.setProperty("--aspect", width / height);
  }

  /** Put plane, divider and tags where size, zoom, offset and divider say. */
  arrange() {
    const stage = [this.root.clientWidth, this.root.clientHeight];
    const plane = this.size.map((side) => side * this.fitScale * this.zoom);
    this.offset = stage.map((side, axis) =>
      plane[axis] <= side ? (side - plane[axis]) / 2 : Math.min(0, Math.max(side - plane[axis], this.offset[axis])),
    );
    this.plane.style.width = `${plane[0]}px`;
    this.plane.style.height = `${plane[1]}px`;
    this.plane.style.transform = `translate(${this.offset[0]}px, ${this.offset[1]}px)`;
    this.seen = [Math.max(0, this.offset[0]), Math.min(stage[0], this.offset[0] + plane[0])];
    const top = Math.max(0, this.offset[1]);
    const bottom = Math.min(stage[1], this.offset[1] + plane[1]);
    const x = this.seen[0] + (this.divider.value / 100) * (this.seen[1] - this.seen[0]);
    this.painted.style.clipPath = `inset(0 0 0 ${x - this.offset[0]}px)`;
    this.handle.style.transform = `translate(${x}px, ${top}px)`;
    this.handle.style.height = `${bottom - top}px`;
    this.tags[0].style.transform = `translate(${this.seen[0]}px, ${top}px)`;
    this.tags[1].style.transform = `translate(calc(${this.seen[1]}px - 100%), ${top}px)`;
    const room = [x - this.seen[0], this.seen[1] - x];
    this.tags.forEach((tag, side) => tag.classList.toggle("away", room[side] < 84));
    this.root.classList.toggle("zoomed", this.zoom > 1.001);
    this.root.dispatchEvent(new CustomEvent("arranged"));
  }

  listen() {
    const { root } = this;
    new ResizeObserver(() => this.arrange()).observe(root);
    this.divider.addEventListener("input", () => this.arrange());
    root.addEventListener("pointerdown", (event) => this.press(event));
    root.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      root.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    root.addEventListener("dblclick", (event) => {
      const [x, y] = this.at(event);
      if (this.zoom > 1) this.fit();
      else this.zoomTo(Math.max(2, 1 / (this.fitScale * devicePixelRatio)), x, y);
    });
    root.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    root.addEventListener("keydown", (event) => this.key(event));
  }

  at(event) {
    const box = this.root.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  press(event) {
    if (event.button !== 0) return;
    const place = this.at(event);
    const onHandle = event.target.closest("#handle") !== null;
    this.pointers.set(event.pointerId, { place, start: place, onHandle, drags: onHandle });
    capture(this.root, event.pointerId);
  }

  move(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) return;
    const place = this.at(event);
    if (this.pointers.size === 2) this.pinch(event.pointerId, place);
    else if ((pointer.drags ||= Math.hypot(place[0] - pointer.start[0], place[1] - pointer.start[1]) > SLACK)) {
      if (pointer.onHandle || this.zoom <= 1.001) this.divide(place[0]);
      else this.pan(place[0] - pointer.place[0], place[1] - pointer.place[1]);
    }
    pointer.place = place;
  }

  divide(x) {
    this.divider.value = (100 * (x - this.seen[0])) / (this.seen[1] - this.seen[0]);
    this.arrange();
  }

  pinch(id, place) {
    const before = this.pointers.get(id).place;
    const [[, other]] = [...this.pointers].filter(([key]) => key !== id);
    const span = (point) => Math.hypot(point[0] - other.place[0], point[1] - other.place[1]);
    const middle = place.map((value, axis) => (value + other.place[axis]) / 2);
    this.zoomTo((this.zoom * span(place)) / Math.max(1, span(before)), ...middle);
    this.pan((place[0] - before[0]) / 2, (place[1] - before[1]) / 2);
  }

  /** The wheel zooms; where the page itself scrolls, only with the control key (or a pinch, which says the same). */
  wheel(event) {
    const scrolls = document.documentElement.scrollHeight > innerHeight + 1;
    if (scrolls && !event.ctrlKey) return;
    event.preventDefault();
    this.zoomTo(this.zoom * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), ...this.at(event));
  }

  key(event) {
    if (event.target !== this.root || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = {
      "+": () => this.zoomIn(),
      "=": () => this.zoomIn(),
      "-": () => this.zoomOut(),
      0: () => this.fit(),
      ArrowLeft: () => this.pan(PAN_STEP, 0),
      ArrowRight: () => this.pan(-PAN_STEP, 0),
      ArrowUp: () => this.pan(0, PAN_STEP),
      ArrowDown: () => this.pan(0, -PAN_STEP),
    };
    const move = moves[event.key];
    if (!move || (event.key.startsWith("Arrow") && this.zoom <= 1)) return;
    event.preventDefault();
    move();
  }
}

function draw(canvas, source, width, height) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").drawImage(source, 0, 0, width, height);
}

/** Keep the pointer's events coming to an element; a pointer that is gone already is no harm. */
function capture(element, id) {
  try {
    element.setPointerCapture(id);
  } catch {
    // the pointer has left
  }
}
