// Figures in plain words. Pure functions.

const SAME = 0.1;
const MUCH = 0.3;

export const STATES = {
  awaiting_review: "awaits review", approved: "approved", rejected: "rejected", published: "published",
  held: "held", failed: "failed", cancelled: "cancelled", queued: "queued", running: "in work",
};

/** Say what became of a finding, from what the model's reader thinks of both pictures (0 to 1). */
export function verdict(before, after) {
  const change = after - before;
  if (Math.abs(change) < SAME) return "as likely as before";
  const amount = Math.abs(change) < MUCH ? "" : "much ";
  return `${amount}${change > 0 ? "more" : "less"} likely than before`;
}

export function isChanged(before, after) {
  return Math.abs(after - before) >= SAME;
}

export function findingName(name) {
  return name.replaceAll("_", " ").replace(/ (\w)/g, (_, letter) => ` ${letter.toLowerCase()}`);
}

/** Return [name, before, after], what changed or is likely first. */
export function findingRows(figures) {
  const rows = Object.keys(figures.findings_before).map(
    (name) => [name, figures.findings_before[name], figures.findings_after[name] ?? NaN]);
  const weight = ([, before, after]) => (isChanged(before, after) ? 1 : 0) + Math.max(before, after);
  return rows.sort((a, b) => weight(b) - weight(a));
}

export function similarityWords(similarity, limit) {
  const value = `Likeness to the original ${similarity.toFixed(2).replace("-", "\u2212")}`;
  if (limit === null || limit === undefined) return `${value}.`;
  const where = similarity <= limit ? "within" : "above";
  return `${value}, ${where} the limit of ${limit.toFixed(2)} that this model is held to.`;
}

/** Say what was measured of a model at the profile and strength of a job, or that nothing was. */
export function riskSentence(models, job) {
  const model = models.find((one) => one.bundle && one.bundle.sha256 === job.model.sha256);
  const profile = job.options.profile;
  const measured = model?.bundle.measured[profile];
  const strength = job.figures.strength;
  if (!measured || !Object.keys(measured).length) {
    return "What remains of the risk was not measured for this model: take it as if nothing had been lowered.";
  }
  const nearest = Object.keys(measured).reduce((best, key) =>
    Math.abs(key - strength) < Math.abs(best - strength) ? key : best);
  const found = measured[nearest];
  const [low, high] = found.interval.map((value) => percent(value));
  const where = Math.abs(nearest - strength) < 1e-6
    ? `At ${profile}, strength ${Number(strength)}`
    : `Not measured at strength ${Number(strength)}; at the nearest one, ${profile} ${Number(nearest)}`;
  return `${where}: a network found an original and its redrawn image more alike than images of two people in `
    + `${percent(found.linkage_auc)} of comparisons (95\u00a0% interval ${low} to ${high}, n = ${found.n}); chance is 50\u00a0%, `
    + "and a stronger attacker may do better.";
}

export function percent(value) {
  return `${Math.round(value * 100)}\u00a0%`;
}

export function countdown(seconds) {
  const left = Math.max(0, Math.ceil(seconds));
  return `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
}

export function when(iso) {
  if (!iso) return "";
  const date = new Date(iso);
  const isToday = date.toDateString() === new Date().toDateString();
  return date.toLocaleString([], { ...(isToday ? {} : { dateStyle: "medium" }), timeStyle: "short" });
}
