// The page of readers: one blinded pair at a time, every answer saved as it is given.

import { get, picture, Problem, put, signIn } from "../review/api.js";
import { Viewer } from "../review/viewer.js";
import { findingName } from "../review/words.js";

const ANSWERS = [["adequate", "Yes"], ["inadequate", "No"], ["not_assessable", "Not assessable"]];

const part = (id) => document.getElementById(id);

class Reading {
  constructor(study) {
    this.study = study;
    this.viewer = new Viewer(part("stage"));
    this.busy = false;
    part("title").textContent = study.title;
    part("question").textContent = study.question;
    part("next").addEventListener("click", () => this.go(1));
    part("previous").addEventListener("click", () => this.go(-1));
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  async go(step) {
    const position = this.item.position + step;
    if (position < 1) return this.#say("This is the first pair.");
    if (position <= this.item.items) return this.show(position);
    const { next } = await this.#trying(() => get(`reader-studies/${this.study.id}`)) ?? {};
    if (next === null) return this.#say("You have answered everything. Thank you. You can close this page.");
    if (next) {
      this.#say("This is the first pair with an open question.");
      return this.show(next);
    }
    return undefined;
  }

  show(position) {
    return this.#trying(async () => {
      const path = `reader-studies/${this.study.id}/items/${position}`;
      const [item, left, right] = await Promise.all([get(path), picture(`${path}/left`), picture(`${path}/right`)]);
      this.item = item;
      this.viewer.fit();
      await this.viewer.set({ left: { url: left.url, alt: "Left radiograph" }, right: { url: right.url, alt: "Right radiograph" } });
      part("answers").replaceChildren(...this.study.findings.map((finding) => this.#asked(finding)));
      this.#progress();
    });
  }

  #asked(finding) {
    const set = document.createElement("fieldset");
    const legend = document.createElement("legend");
    legend.textContent = findingName(finding);
    set.append(legend, ...ANSWERS.map(([answer, words]) => {
      const label = document.createElement("label");
      const choice = document.createElement("input");
      Object.assign(choice, { type: "radio", name: finding, value: answer, checked: this.item.answers[finding] === answer });
      choice.addEventListener("change", () => this.#save(finding, answer));
      label.append(choice, words);
      return label;
    }));
    return set;
  }

  async #save(finding, answer) {
    const { position } = this.item;
    const saved = await this.#trying(() => put(`reader-studies/${this.study.id}/items/${position}/answers`, { finding, answer }));
    if (this.item.position !== position) return;
    if (saved) this.item = saved;
    for (const choice of document.getElementsByName(finding)) choice.checked = this.item.answers[finding] === choice.value;
    this.#progress();
  }

  #progress() {
    const open = this.study.findings.length - Object.keys(this.item.answers).length;
    part("progress").textContent = `Pair ${this.item.position} of ${this.item.items}${open ? `, ${open} open` : ", saved"}`;
  }

  /** Do something; where that fails say so and show what the server has. */
  async #trying(action) {
    const banner = part("banner");
    try {
      const result = await action();
      banner.hidden = true;
      return result;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      banner.hidden = false;
      banner.querySelector("span").textContent = `Not done: ${error.message}. Please give the answer again.`;
      return undefined;
    }
  }

  #say(words) {
    part("said").textContent = words;
    setTimeout(() => { part("said").textContent = ""; }, 6000);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    if (event.key.toLowerCase() === "n") this.go(1);
    else if (event.key.toLowerCase() === "p") this.go(-1);
    else if (!this.viewer.key(event.key)) return;
    event.preventDefault();
  }
}

function choose(studies) {
  part("choose").hidden = false;
  part("studies").replaceChildren(...studies.map((study) => {
    const row = document.createElement("li");
    const button = document.createElement("button");
    const small = document.createElement("small");
    button.type = "button";
    button.textContent = study.title;
    small.textContent = study.next === null ? "done, thank you" : `${study.done} of ${study.items} pairs done, ${study.findings.length} findings each`;
    button.append(small);
    button.addEventListener("click", async () => {
      part("choose").hidden = true;
      part("reading").hidden = false;
      await new Reading(study).show(study.next ?? 1);
    });
    row.append(button);
    return row;
  }));
  if (!studies.length) part("studies").textContent = "No study is planned. An administrator plans them.";
}

const me = await signIn(part("sign-in"));
part("who").textContent = me.name;
try {
  choose(await get("reader-studies"));
} catch (error) {
  part("sign-in").hidden = false;
  part("sign-in").querySelector(".problem").textContent = `${error.message}.`;
}
