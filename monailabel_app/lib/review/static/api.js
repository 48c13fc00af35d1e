// Requests to the server: the token of this tab, errors in words, and the server's clock.

const KEY = "privdiff-token";
const SECONDS = 30;

let clockOffset = 0;

export class Problem extends Error {
  constructor(status, message, hint) {
    super(hint ? `${message}; ${hint}` : message);
    this.status = status;
  }
}

/** The server could not be asked; whether it did something is not known. */
export class Unreachable extends Problem {
  constructor() {
    super(0, "the server does not answer", "nothing is lost, it is asked again; check the network if this stays");
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** Milliseconds since 1970 by the server's clock. */
export function serverNow() {
  return Date.now() + clockOffset;
}

async function ask(method, path, body) {
  const headers = {};
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`v1/${path}`, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", signal: AbortSignal.timeout((path.endsWith("/publish") ? 5 : 1) * SECONDS * 1000),
    });
  } catch {
    throw new Unreachable();
  }
  const date = Date.parse(response.headers.get("Date"));
  if (!Number.isNaN(date)) clockOffset = date - Date.now();
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Problem(response.status, said.message || `the server answered ${response.status}`, said.hint || "try again");
}

export const get = async (path) => (await ask("GET", path)).json();
export const post = async (path, body = {}) => (await ask("POST", path, body)).json();
export const put = async (path, body) => (await ask("PUT", path, body)).json();
export const remove = async (path) => (await ask("DELETE", path)).json();

/** Return a picture as {url, sha256}: exactly the bytes that came, and the hash of the file of record. */
export async function picture(path) {
  const response = await ask("GET", path);
  const sha256 = response.headers.get("X-PrivDiff-SHA256");
  return { url: URL.createObjectURL(await response.blob()), sha256 };
}

/** Show a sign-in form where the server wants a token; return who is signed in. */
export async function signIn(form) {
  const field = form.querySelector("input");
  const problem = form.querySelector(".problem");
  for (;;) {
    try {
      const me = await get("me");
      form.hidden = true;
      return me;
    } catch (error) {
      if (error.status === 401) {
        if (token.get()) problem.textContent = "This token is not valid here, or not any more. Ask your administrator for one.";
        token.forget();
      } else {
        problem.textContent = error.message;
      }
    }
    form.hidden = false;
    field.focus();
    await new Promise((resolve) => form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim()) token.set(field.value.trim());
      field.value = "";
      problem.textContent = "";
      resolve();
    }, { once: true }));
  }
}
