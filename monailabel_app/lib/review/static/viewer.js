// Pictures that move together: one zoom, one place, one window for all panes.

const LARGEST = 16;
const STEP = 1.25;

export class Viewer {
  constructor(stage) {
    this.stage = stage;
    this.panes = Object.fromEntries([...stage.querySelectorAll("[data-pane]")].map((pane) => [pane.dataset.pane, pane]));
    this.zoomOutput = stage.querySelector("#zoom");
    this.width = stage.querySelector("#width");
    this.level = stage.querySelector("#level");
    this.fade = stage.querySelector("#fade");
    this.pointers = new Map();
    for (const pane of Object.values(this.panes)) this.#listen(pane);
    for (const slider of [this.width, this.level, this.fade].filter(Boolean)) slider.addEventListener("input", () => this.#apply());
    for (const button of stage.querySelectorAll("[data-show]")) button.addEventListener("click", () => this.show(button.dataset.show));
    stage.querySelector("#fit").addEventListener("click", () => this.fit());
    new ResizeObserver(() => this.#apply()).observe(stage);
    this.fit();
  }

  /** Show pictures by pane, {url, alt}; resolves when all can be seen. */
  async set(pictures) {
    this.clear();
    await Promise.all(Object.entries(pictures).map(([name, { url, alt }]) => {
      const image = this.panes[name].querySelector("img");
      image.src = url;
      image.alt = alt;
      return image.decode();
    }));
  }

  clear() {
    for (const pane of Object.values(this.panes)) {
      const image = pane.querySelector("img");
      if (image.src) URL.revokeObjectURL(image.src);
      image.removeAttribute("src");
      image.alt = "";
    }
  }

  show(mode) {
    this.stage.dataset.mode = mode;
    for (const button of this.stage.querySelectorAll("[data-show]")) {
      button.setAttribute("aria-pressed", String(button.dataset.show === mode));
    }
    if (this.fade) this.fade.value = 100;
    this.#apply();
  }

  toggle(mode) {
    this.show(this.stage.dataset.mode === mode ? "side" : mode);
  }

  /** Change between both pictures in one place. */
  blink() {
    if (this.stage.dataset.mode !== "fade") return this.show("fade");
    this.fade.value = this.fade.value < 50 ? 100 : 0;
    return this.#apply();
  }

  fit() {
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    if (this.width) [this.width.value, this.level.value] = [100, 50];
    this.#apply();
  }

  /** Zoom about a point of a pane; without one, about its middle. */
  zoom(factor, point) {
    const { width, height } = this.#size();
    const [x, y] = point ?? [width / 2, height / 2];
    const scale = Math.min(LARGEST, Math.max(1, this.scale * factor));
    this.x = x - (x - this.x) * scale / this.scale;
    this.y = y - (y - this.y) * scale / this.scale;
    this.scale = scale;
    this.#apply();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.#apply();
  }

  /** Do what a key stands for; return whether it stands for something. */
  key(key) {
    const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (moves[key]) this.pan(...moves[key]);
    else if (key === "+" || key === "=") this.zoom(STEP);
    else if (key === "-") this.zoom(1 / STEP);
    else if (key === "0") this.fit();
    else return false;
    return true;
  }

  #size() {
    const shown = Object.values(this.panes).find((pane) => pane.clientWidth);
    return { width: shown?.clientWidth ?? 0, height: shown?.clientHeight ?? 0 };
  }

  #apply() {
    const { width, height } = this.#size();
    this.x = Math.min(0, Math.max(width * (1 - this.scale), this.x));  // no edge comes into the pane
    this.y = Math.min(0, Math.max(height * (1 - this.scale), this.y));
    const filter = this.#window();
    for (const [name, pane] of Object.entries(this.panes)) {
      const image = pane.querySelector("img");
      image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
      image.style.filter = name === "difference" ? "" : filter;
    }
    if (this.fade) {
      const faded = this.stage.dataset.mode === "fade";
      this.panes.redrawn.querySelector("img").style.opacity = faded ? this.fade.value / 100 : "";
    }
    this.zoomOutput.textContent = `${Math.round(this.scale * 100)} %`;
  }

  #window() {
    if (!this.width) return "";
    const [width, level] = [this.width.value / 100, this.level.value / 100];
    const slope = 1 / width;
    const intercept = 0.5 - level * slope;
    for (const channel of document.querySelectorAll("#window feComponentTransfer > *")) {
      channel.setAttribute("slope", slope);
      channel.setAttribute("intercept", intercept);
    }
    return width === 1 && level === 0.5 ? "" : "url(#window)";
  }

  #listen(pane) {
    const at = (event) => {
      const box = pane.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    pane.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(STEP ** (-Math.sign(event.deltaY)), at(event));
    }, { passive: false });
    pane.addEventListener("dblclick", () => this.fit());
    pane.addEventListener("pointerdown", (event) => {
      pane.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
    });
    for (const end of ["pointerup", "pointercancel"]) {
      pane.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    pane.addEventListener("pointermove", (event) => this.#moved(event, at(event)));
  }

  #moved(event, now) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    if (other) this.zoom(distance(now, other) / Math.max(1, distance(before, other)), other);
    else if (event.shiftKey && this.width) {
      this.width.value = Number(this.width.value) + dx / 3;
      this.level.value = Number(this.level.value) + dy / 4;
      this.#apply();
    } else this.pan(dx, dy);
  }
}

function distance([ax, ay], [bx, by]) {
  return Math.hypot(ax - bx, ay - by);
}
