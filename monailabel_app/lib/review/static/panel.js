// What is said of a job beside its pictures.

import { jobName } from "./queue.js";
import { findingName, findingRows, isChanged, percent, riskSentence, similarityWords, STATES, verdict, when } from "./words.js";

const FEW = 4;
const TEXT = {
  checked: "looked for, and filled where found", "not checked": "not looked for: search both pictures",
};

export class Panel {
  constructor(aside) {
    this.part = (id) => aside.querySelector(`#${id}`);
    this.all = false;
    this.part("all-findings").addEventListener("click", () => {
      this.all = !this.all;
      this.#findings(this.job);
    });
  }

  show(job, models, me) {
    this.job = job;
    this.part("title").textContent = jobName(job);
    this.part("state").replaceChildren(dot(job.state), ` ${stateWords(job)}`);
    this.part("why").textContent = reason(job);
    this.part("why").hidden = !reason(job);
    this.part("facts").replaceChildren(...facts(job, me).flatMap(([name, value, kind]) => [element("dt", name), element("dd", value, kind)]));
    this.part("linkage").hidden = this.part("findings").hidden = !job.figures;
    if (!job.figures) return;
    this.#linkage(job, models);
    this.#findings(job);
  }

  clear() {
    this.job = null;
    this.part("title").textContent = "No job";
    this.part("facts").replaceChildren();
    this.part("state").textContent = "";
    for (const id of ["why", "linkage", "findings"]) this.part(id).hidden = true;
  }

  #linkage(job, models) {
    const similarity = job.figures.identity_similarity;
    const words = similarityWords(similarity, job.linkage_limit);
    const scale = this.part("similarity");
    scale.classList.toggle("above", job.linkage_limit !== null && similarity > job.linkage_limit);
    scale.setAttribute("aria-label", words);
    scale.querySelector(".fill").style.width = width(similarity);
    scale.querySelector(".limit").style.left = width(job.linkage_limit ?? 1);
    this.part("similarity-words").textContent = words;
    this.part("risk").textContent = riskSentence(models, job);
  }

  #findings(job) {
    const rows = findingRows(job.figures);
    const shown = this.all ? rows : rows.slice(0, Math.max(FEW, rows.filter(([, before, after]) => isChanged(before, after)).length));
    this.part("findings").querySelector("tbody").replaceChildren(...shown.map(findingRow));
    const button = this.part("all-findings");
    button.hidden = rows.length <= FEW;
    button.setAttribute("aria-expanded", String(this.all));
    button.textContent = this.all ? "Show few findings" : `Show all ${rows.length} findings`;
  }
}

function facts(job, me) {
  const own = job.submitter === me.name && me.two_person ? " (you: two others must approve)" : job.submitter === me.name ? " (you)" : "";
  return [
    ["Queued by", `${job.submitter}${own}`, own ? "own" : ""],
    ["Model", `${job.model.name} ${job.model.version}`],
    ["Profile", `${job.options.profile}${job.figures ? `, strength ${job.figures.strength}` : ""}`],
    ["Text", job.figures ? textWords(job.figures) : ""],
    ["Batch", job.batch],
    ["Approved by", job.approvals.join(", ")],
    ["Decided", job.review ? `${job.review.decision} by ${job.review.by}, ${when(job.review.at)}` : ""],
    ["Comment", job.review?.comment ?? ""],
    ["Published", when(job.published?.at)],
  ].filter(([, value]) => value?.trim());
}

function textWords(figures) {
  const places = figures.text_boxes ? `; ${figures.text_boxes} filled, ${figures.markers_redrawn} side markers drawn anew` : "";
  return `${TEXT[figures.text_state] ?? figures.text_state}${places}`;
}

function stateWords(job) {
  if (job.state === "awaiting_review" && job.approvals.length) return "approved by one person, awaits a second one";
  return STATES[job.state];
}

function reason(job) {
  if (job.state === "held") return `Held, so it cannot be approved: ${job.reason}`;
  return job.state === "failed" ? job.reason : "";
}

function findingRow([name, before, after]) {
  const row = document.createElement("tr");
  row.classList.toggle("changed", isChanged(before, after));
  const head = element("th", findingName(name));
  head.scope = "row";
  const cell = document.createElement("td");
  const bars = document.createElement("span");
  bars.className = "bars";
  bars.setAttribute("role", "img");
  bars.setAttribute("aria-label", `before ${percent(before)}, after ${percent(after)}`);
  bars.title = bars.getAttribute("aria-label");
  for (const [kind, value] of [["before", before], ["after", after]]) {
    const bar = element("i", "", kind);
    bar.style.width = width(value);
    bars.append(bar);
  }
  cell.append(bars, element("small", verdict(before, after)));
  row.append(head, cell);
  return row;
}

function dot(state) {
  return element("span", "", `dot ${state}`);
}

function element(tag, text, kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function width(value) {
  return `${Math.min(100, Math.max(0, value * 100))}%`;
}
