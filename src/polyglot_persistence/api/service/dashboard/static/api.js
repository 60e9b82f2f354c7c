// Requests to this API, with the key that the user gave; every failure is a Problem with words.
const KEY = "polyglot-persistence key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

// `polyglot up` prints a link that ends with the key. What follows # is sent to no server, and is
// taken out of the address before anybody copies it.
export function takeKeyOfLink() {
  const found = /^#key=([!-~]+)$/.exec(location.hash);
  if (!found) return;
  key.set(found[1]);
  history.replaceState(null, "", location.pathname + location.search);
}

export const authorization = () => (key.get() ? { Authorization: `Bearer ${key.get()}` } : {});

export class Problem extends Error {
  // `errors` are the broken rules, each with the JSON pointer of its field.
  constructor({ status, title, detail, errors = [] }) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.errors = errors;
  }

  get needsKey() {
    return this.status === 401 || this.status === 403;
  }
}

export async function problemOf(response) {
  const said = (response.headers.get("content-type") ?? "").includes("json")
    ? await response.json().catch(() => ({}))
    : {};
  const title = said.title ?? `The service answered ${response.status}`;
  return new Problem({ ...said, status: response.status, title });
}

const AWAY = "The service does not answer.";

export async function ask(path, { method = "GET", body, headers = {}, signal } = {}) {
  const content = body === undefined ? {} : { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      cache: "no-store",
      headers: { ...authorization(), ...content, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ status: 0, title: AWAY });
  }
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

export const post = (path, body, headers) => ask(path, { method: "POST", body, headers });

// Not crypto.randomUUID(): that is missing on plain HTTP.
export const newKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");

export const query = (parameters) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

// The page's own address keeps what was asked, so that it can be sent to a colleague.
export const address = {
  get: (name) => new URLSearchParams(location.search).get(name) ?? "",
  set(changes) {
    const now = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes)) {
      if (value) now.set(name, value);
      else now.delete(name);
    }
    const text = now.toString();
    history.replaceState(null, "", `${location.pathname}${text ? `?${text}` : ""}`);
  },
};
