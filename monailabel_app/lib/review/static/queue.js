// The list of jobs at the side.

import { get } from "./api.js";
import { STATES, when } from "./words.js";

const FILTERS = [
  ["Awaiting review", ["awaiting_review"]], ["Held", ["held"]], ["Approved", ["approved"]], ["Rejected", ["rejected"]],
  ["Published", ["published"]], ["In work", ["queued", "running"]], ["Failed", ["failed", "cancelled"]],
];
const PAGE = 100;

export class Queue {
  constructor(nav, open) {
    this.list = nav.querySelector("#jobs");
    this.filter = nav.querySelector("#filter");
    this.batch = nav.querySelector("#batch");
    this.more = nav.querySelector("#more");
    this.open = open;
    this.jobs = [];
    this.current = "";
    for (const [name] of FILTERS) this.filter.append(new Option(name));
    this.filter.addEventListener("change", () => this.refresh());
    this.batch.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.refresh(), 300);
    });
    this.more.addEventListener("click", () => this.#load(this.next));
  }

  /** Read the list anew, as far as it was shown; return how many jobs there are by state. */
  refresh() {
    return this.#load(null, Math.max(PAGE, this.jobs.length));
  }

  mark(id) {
    this.current = id;
    for (const button of this.list.querySelectorAll("button")) {
      button.setAttribute("aria-current", String(button.dataset.id === id));
    }
  }

  async #load(after, limit = PAGE) {
    const query = new URLSearchParams({ limit: Math.min(limit, 500) });
    for (const state of FILTERS[this.filter.selectedIndex][1]) query.append("state", state);
    if (this.batch.value.trim()) query.set("batch", this.batch.value.trim());
    if (after) query.set("after", after);
    const asked = (this.asked = query.toString());
    const page = await get(`jobs?${query}`);
    if (asked !== this.asked) return page.counts;  // somebody has chosen otherwise meanwhile
    this.jobs = after ? [...this.jobs, ...page.jobs] : page.jobs;
    this.next = page.next;
    this.more.hidden = !page.next;
    FILTERS.forEach(([name, states], index) => {
      const number = states.reduce((sum, state) => sum + (page.counts[state] ?? 0), 0);
      this.filter.options[index].text = `${name} (${number})`;
    });
    this.#draw();
    return page.counts;
  }

  #draw() {
    const focused = document.activeElement?.dataset?.id;
    this.list.replaceChildren(...this.jobs.map((job) => this.#row(job)));
    this.mark(this.current);
    if (focused) this.list.querySelector(`[data-id="${focused}"]`)?.focus({ preventScroll: true });
  }

  #row(job) {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.id = job.id;
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = jobName(job);
    const dot = document.createElement("span");
    dot.className = `dot ${job.state}`;
    dot.title = STATES[job.state];
    const small = document.createElement("small");
    const taken = job.claim ? `, ${job.claim.by} has it` : "";
    const half = job.state === "awaiting_review" && job.approvals.length ? ", 1 of 2 approved" : "";
    small.textContent = `${STATES[job.state]}${half}${taken}, ${when(job.finished ?? job.created)}`;
    button.append(name, dot, small);
    button.addEventListener("click", () => this.open(job.id));
    row.append(button);
    return row;
  }
}

export function jobName(job) {
  return job.image || `Upload ${job.id.slice(0, 8)}`;
}
