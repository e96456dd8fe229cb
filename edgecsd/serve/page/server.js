// What the page asks the server, and its errors in words.
//
// export class Problem extends Error {title, message, status}      status 0: no connection
// export async function ask(path, options) -> Response              throws Problem
// export async function search(about, embedding, k) -> [{row, id, score, photo?}]

export class Problem extends Error {
  constructor(title, message, status) {
    super(message);
    Object.assign(this, { title, status });
  }
}

const TITLES = {
  401: "The server asks for its code again",
  409: "This model and the gallery do not belong together",
  422: "The model gave an unusable embedding",
  429: "Too many searches at once",
  503: "The server is busy",
};

export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem("No connection to the server", "It may have been stopped, or the network is gone.", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const [what, help] = [body.message ?? `status ${response.status}`, body.what_to_do].map(sentence);
  // Of 409 the advice is for who made an app; the page has its own.
  const text = response.status === 409 ? what : `${what} ${help}`.trim();
  throw new Problem(TITLES[response.status] ?? "The server refused", text, response.status);
}

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");

export async function search(about, embedding, k) {
  const response = await ask(`/search?k=${k}`, {
    method: "POST",
    headers: {
      "content-type": "application/octet-stream; dtype=float32",
      "x-edgecsd-space": about.model.fingerprint,
    },
    body: new Float32Array(embedding),
  });
  return (await response.json()).results[0];
}
