// The review page: one job at a time, claimed, looked at, decided.

import { get, picture, post, Problem, remove, serverNow, signIn, token, Unreachable } from "./api.js";
import { Panel } from "./panel.js";
import { Queue } from "./queue.js";
import { Viewer } from "./viewer.js";
import { countdown } from "./words.js";

const DECIDABLE = ["awaiting_review", "approved", "rejected", "held"];
const REFRESH_SECONDS = 10;
const ACTIVE_SECONDS = 60;
const SOON_SECONDS = 60;

const part = (id) => document.getElementById(id);
const at = (job, what = "") => `jobs/${encodeURIComponent(job.id)}${what}`;

class Desk {
  constructor(me) {
    this.me = me;
    this.job = null;
    this.sha256 = "";
    this.seen = [];
    this.busy = false;
    this.models = [];
    this.active = Date.now();
    this.viewer = new Viewer(part("stage"));
    this.panel = new Panel(document.querySelector("aside"));
    this.queue = new Queue(part("queue"), (id) => this.#do(() => this.open(id), { waits: true }));
  }

  async start() {
    part("desk").hidden = false;
    part("who").textContent = `${this.me.name}${this.me.two_person ? " - two people must approve" : ""}`;
    part("sign-out").hidden = !token.get();
    this.#wire();
    await this.#do(async () => {
      await this.#refresh();
      this.models = (await get("models")).models;
      await this.next();
    });
    setInterval(() => this.#tick(), 1000);
    setInterval(() => this.#keep(), REFRESH_SECONDS * 1000);
  }

  // What a reviewer does

  /** Claim a job if it can be decided, and show it. */
  async open(id) {
    const left = this.job;
    if (left && left.id !== id) await this.#giveBack(left);
    let job = await get(`jobs/${encodeURIComponent(id)}`);
    let problem = "";
    if (DECIDABLE.includes(job.state)) {
      try {
        job = await post(at(job, "/claim"));
      } catch (error) {
        if (error.status !== 409) throw error;
        problem = job.state === "held" && !job.sha256 ? "" : error.message;
      }
    }
    await this.#show(job);
    this.#say(problem ? `You can look, but not decide: ${problem}` : "");
  }

  async next() {
    const left = this.job;
    if (left) await this.#giveBack(left);
    const job = (await this.#claimNext(left?.id)) ?? (left && (await this.#claimNext()));
    if (!job) return this.#empty();
    if (job.id === left?.id) this.#say("This is the only job that awaits you.");
    return this.#show(job);
  }

  async previous() {
    const place = this.seen.lastIndexOf(this.job?.id);
    const id = this.seen[(place < 0 ? this.seen.length : place) - 1];
    if (id) await this.open(id);
    else this.#say("There was no job before this one.");
  }

  async decide(decision) {
    const job = this.job;
    const body = { decision, comment: part("comment").value.trim(), sha256: this.sha256 };
    const decided = await post(at(job, "/review"), body);
    sessionStorage.removeItem(draft(job));
    const half = decision === "approved" && decided.state === "awaiting_review";
    this.#say(half ? "Your approval is recorded. A second person must approve it too." : `${decision === "approved" ? "Approved" : "Rejected"}.`);
    this.job = decided;
    await this.#refresh();
    await this.next();
  }

  async publish() {
    const { job, store_answer: answer } = await post(at(this.job, "/publish"));
    this.#update(job);
    this.#say(`Published: ${answer}.`);
    await this.#refresh();
  }

  async claimAgain() {
    await this.open(this.job.id);
  }

  // What follows

  async #claimNext(after) {
    try {
      return await post(`review/next${after ? `?after=${encodeURIComponent(after)}` : ""}`);
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  async #giveBack(job) {
    if (!this.#isMine(job)) return;
    await remove(at(job, "/claim")).catch((error) => {
      if (error instanceof Unreachable) throw error;  // else it ended by itself
    });
  }

  async #show(job) {
    this.sha256 = "";
    this.viewer.clear();
    this.viewer.fit();
    this.#remember(job.id);
    part("comment").value = sessionStorage.getItem(draft(job)) ?? "";
    this.#update(job);
    this.queue.mark(job.id);
    if (!job.sha256) return this.#nothing(job.reason ? `There is no redrawn image.\n${job.reason}` : "There is no redrawn image yet.");
    part("nothing").hidden = true;
    const [redrawn, original, difference] = await Promise.all(
      ["/result?kind=png", "/source?kind=png", "/difference?kind=png"].map((what) => picture(at(job, what))));
    if (this.job?.id !== job.id) return undefined;
    await this.viewer.set({
      original: { url: original.url, alt: "Original chest radiograph" },
      redrawn: { url: redrawn.url, alt: "Redrawn chest radiograph" },
      difference: { url: difference.url, alt: "Difference of both" },
    });
    this.sha256 = redrawn.sha256;
    return this.#enable();
  }

  #update(job) {
    this.job = job;
    this.claimUntil = job.claim?.by === this.me.name ? Date.parse(job.claim.until) : 0;
    this.panel.show(job, this.models, this.me);
    this.#enable();
    this.#tick();
  }

  #empty() {
    this.job = null;
    this.sha256 = "";
    this.claimUntil = 0;
    this.viewer.clear();
    this.panel.clear();
    this.queue.mark("");
    part("comment").value = "";
    this.#nothing("No job awaits your review.\nThe list shows those that were decided. New ones are looked for by themselves; N looks now.");
    this.#enable();
    this.#tick();
  }

  #nothing(words) {
    part("nothing").textContent = words;
    part("nothing").hidden = false;
  }

  #enable() {
    const job = this.job;
    const ready = Boolean(job && this.sha256 && this.#isMine(job) && !this.busy);
    const mine = job?.submitter === this.me.name && this.me.two_person;
    const twice = this.me.two_person && job?.approvals.includes(this.me.name);
    part("reject").disabled = !ready;
    part("approve").disabled = !ready || job.state === "held" || mine || twice;
    part("publish").hidden = !(this.me.store && job && job.state === "approved");
    part("publish").disabled = this.busy;
    part("comment").disabled = !job || !DECIDABLE.includes(job.state);
    part("why-not").textContent = !job ? "" : mine ? "You queued this image: two others must approve it."
      : twice && job.state === "awaiting_review" ? "You approved it. A second person must approve it too."
      : job.state === "held" ? "A held image can be rejected, not approved." : "";
  }

  #isMine(job) {
    return job.claim?.by === this.me.name && this.claimUntil > serverNow();
  }

  #remember(id) {
    if (!this.seen.includes(id)) this.seen.push(id);
  }

  #say(words) {
    part("said").textContent = words;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { part("said").textContent = ""; }, 6000);
  }

  // The clock

  #tick() {
    const left = (this.claimUntil - serverNow()) / 1000;
    const wasMine = Boolean(this.claimUntil);
    const ended = wasMine && left <= 0;
    const claim = part("claim");
    claim.textContent = !wasMine ? "" : ended ? "Your time has run out" : `Yours for ${countdown(left)}`;
    claim.classList.toggle("soon", wasMine && !ended && left < SOON_SECONDS);
    claim.classList.toggle("ended", ended);
    document.querySelector(".panes").classList.toggle("old", ended);
    if (ended && !this.wasEnded) {
      this.#enable();
      this.#warn("Your claim has ended, and others can take this job. Your comment is kept.", ["Claim it again (C)", () => this.claimAgain()]);
    } else if (!ended && this.wasEnded) this.#warn("");
    this.wasEnded = ended;
  }

  /** Keep the list fresh, and the claim of who works. */
  async #keep() {
    if (document.hidden || this.busy) return;
    try {
      await this.#refresh();
      const left = this.claimUntil - serverNow();
      if (left > 0 && Date.now() - this.active < ACTIVE_SECONDS * 1000) {
        const { claim } = await post(at(this.job, "/claim"));
        if (claim?.by === this.me.name) this.claimUntil = Date.parse(claim.until);
      }
      if (this.unreachable) this.#warn("");
    } catch (error) {
      this.#explain(error);
    }
  }

  async #refresh() {
    const counts = await this.queue.refresh();
    const waiting = counts.awaiting_review ?? 0;
    part("waiting").textContent = `${waiting} ${waiting === 1 ? "awaits" : "await"} review`;
  }

  // Problems

  /** Do one thing at a time, and say what went wrong. A key that comes meanwhile was meant for
   *  the job before, so it is dropped; a job that was chosen by name waits. */
  async #do(action, { waits = false } = {}) {
    if (this.busy) {
      if (waits) this.wanted = action;
      return;
    }
    this.busy = true;
    this.#enable();
    try {
      await action();
      if (this.unreachable || this.refused) this.#warn("");
    } catch (error) {
      this.#explain(error);
    } finally {
      this.busy = false;
      this.#enable();
    }
    const wanted = this.wanted;
    this.wanted = null;
    if (wanted) await this.#do(wanted);
  }

  #explain(error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) {
      this.#warn("Your token is not valid any more. What you wrote is kept in this tab.", ["Sign in again", () => location.reload()]);
    } else {
      this.#warn(`${error.message[0].toUpperCase()}${error.message.slice(1)}.`);
      this.unreachable = error instanceof Unreachable;
      this.refused = !this.unreachable;
    }
  }

  #warn(words, action) {
    this.unreachable = this.refused = false;
    const banner = part("banner");
    banner.hidden = !words;
    banner.querySelector("span").textContent = words;
    const button = part("banner-action");
    button.hidden = !action;
    button.textContent = action?.[0] ?? "";
    this.warned = action?.[1];
  }

  // Keys and buttons

  #wire() {
    const clicks = {
      approve: () => this.decide("approved"), reject: () => this.decide("rejected"), next: () => this.next(),
      previous: () => this.previous(), publish: () => this.publish(), "banner-action": () => this.warned?.(),
    };
    for (const [id, action] of Object.entries(clicks)) part(id).addEventListener("click", () => this.#do(action));
    part("open-help").addEventListener("click", () => part("help").showModal());
    part("sign-out").addEventListener("click", () => this.#do(async () => {
      if (this.job) await this.#giveBack(this.job);
      token.forget();
      location.reload();
    }));
    part("toggle-queue").addEventListener("click", () => {
      const without = part("desk").classList.toggle("without-queue");
      part("toggle-queue").setAttribute("aria-expanded", String(!without));
    });
    part("comment").addEventListener("input", () => sessionStorage.setItem(draft(this.job), part("comment").value));
    document.addEventListener("keydown", (event) => this.#key(event));
    for (const kind of ["keydown", "pointermove", "pointerdown", "wheel"]) {
      document.addEventListener(kind, () => { this.active = Date.now(); }, { passive: true });
    }
  }

  #key(event) {
    const typing = event.target.closest("input, textarea, select");
    if (typing && event.key === "Escape") typing.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat && !event.key.startsWith("Arrow") || part("help").open) return;
    const ended = this.claimUntil && this.claimUntil <= serverNow();
    const keys = {
      a: () => part("approve").click(), r: () => part("reject").click(),  // nothing where they are disabled
      n: () => this.#do(() => this.next()), p: () => this.#do(() => this.previous()),
      c: () => (ended ? this.#do(() => this.claimAgain()) : part("comment").focus()),
      d: () => this.viewer.toggle("difference"), b: () => this.viewer.blink(), 1: () => this.viewer.show("side"),
      "?": () => part("help").showModal(),
    };
    const action = keys[event.key.toLowerCase()];
    const inList = event.target.closest("#queue");
    if (action) action();
    else if (inList && event.key.startsWith("Arrow") || !this.viewer.key(event.key)) return;
    event.preventDefault();
  }
}

function draft(job) {
  return `privdiff-draft:${job.id}`;
}

const me = await signIn(part("sign-in"));
if (me.role === "user") {
  part("sign-in").hidden = false;
  part("sign-in-problem").textContent = "This token is of a user. Reviewing needs the role of a reviewer: ask your administrator.";
  token.forget();
} else {
  await new Desk(me).start();
}
