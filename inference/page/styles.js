/** The styles: a thumbnail of the visitor's own photo for each, and which one or two are chosen. */

/** The tiles of one pack, and the two slots that they fill. */
export class StylePicker extends EventTarget {
  /** @param {HTMLElement} list where the tiles go @param {HTMLElement} slots the element `#mix` */
  constructor(list, slots) {
    super();
    this.list = list;
    this.slots = slots;
    this.chosen = [null, null];
    this.tiles = new Map();
    list.addEventListener("change", (event) => this.choose(event.target.value));
    slots.addEventListener("change", ({ target }) => target.name === "slot" && this.refresh());
    slots.querySelector("#unmix").addEventListener("click", () => {
      this.chosen[1] = null;
      slots.querySelector("#slot-first").checked = true;
      this.tell();
      slots.querySelector("#slot-first").focus();
    });
  }

  /** Make the tiles of a pack and choose `first`, or the pack's first style. */
  show(pack, first = pack.styles[0].name) {
    this.pack = pack;
    this.chosen = [first, null];
    this.slots.hidden = pack.styles.length < 2;
    this.slots.querySelector("#slot-first").checked = true;
    this.tiles = new Map(pack.styles.map((style) => [style.name, tile(style)]));
    this.list.replaceChildren(...[...this.tiles.values()].map(({ label }) => label));
    this.refresh();
  }

  /** The words for a style on the page. */
  title(name) {
    return this.pack.styles.find((style) => style.name === name)?.title ?? "";
  }

  /** Put the photo itself on all tiles, until they are painted. */
  preview(picture) {
    for (const { canvas, label } of this.tiles.values()) {
      label.classList.add("waiting");
      if (label.classList.contains("filled")) continue;
      put(canvas, picture);
    }
  }

  /** Put a painted thumbnail on a tile. */
  fill(name, picture) {
    const { canvas, label } = this.tiles.get(name);
    put(canvas, picture);
    label.classList.remove("waiting");
    label.classList.add("filled");
    this.refreshSlots();
  }

  /** Put a style into the slot that the tiles are for. */
  choose(name) {
    this.chosen[this.slot] = name;
    this.tell();
  }

  get slot() {
    return this.slots.querySelector("#slot-second").checked ? 1 : 0;
  }

  tell() {
    this.refresh();
    this.dispatchEvent(new Event("choose"));
  }

  refresh() {
    for (const [name, { label, input }] of this.tiles) {
      const at = this.chosen.indexOf(name);
      input.checked = name === this.chosen[this.slot];
      input.disabled = at >= 0 && at !== this.slot;
      label.classList.toggle("first", at === 0);
      label.classList.toggle("second", at === 1);
    }
    this.slots.classList.toggle("mixed", this.chosen[1] !== null);
    this.slots.querySelector("#mix-row").hidden = this.chosen[1] === null;
    this.slots.querySelector("#unmix").hidden = this.chosen[1] === null;
    this.refreshSlots();
  }

  refreshSlots() {
    ["first", "second"].forEach((slot, at) => {
      const label = this.slots.querySelector(`label[for=slot-${slot}]`);
      const name = this.chosen[at];
      label.querySelector("b").textContent = name ? this.title(name) : "Mix in a second style";
      const canvas = label.querySelector("canvas");
      canvas.hidden = name === null;
      const source = this.tiles.get(name)?.canvas;
      if (!source?.width) return;
      canvas.width = source.width;
      canvas.height = source.height;
      canvas.getContext("2d").drawImage(source, 0, 0);
    });
  }
}

function tile({ name, title, painter, year }) {
  const label = document.createElement("label");
  label.className = "style";
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "style", value: name });
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  canvas.setAttribute("aria-hidden", "true");
  const heading = Object.assign(document.createElement("b"), { textContent: title || name.replaceAll("_", " ") });
  const small = Object.assign(document.createElement("small"), { textContent: painter });
  const frame = Object.assign(document.createElement("span"), { className: "frame" });
  frame.append(canvas);
  label.append(input, frame, heading, small);
  label.title = [title, painter, year].filter(Boolean).join(", ");
  return { label, input, canvas };
}

function put(canvas, picture) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
