/** Requests to the server: the CSRF token on every one, and a new token after a new login. */

const TIMEOUT = 15_000;

/** What the server, or the way to it, said no to. status 0: it was not reached. wait: seconds it asked us to wait. */
export class Refused extends Error {
  constructor(status, message, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

/** Milliseconds before the next try: 1, 2, 4 ... up to 60 s, less by chance so that clients do not come at once. */
export function pause(tries, atLeast = 0) {
  const seconds = Math.min(60, 2 ** tries) * (0.5 + Math.random() / 2);
  return 1000 * Math.max(atLeast, seconds);
}

/**
 * @param {HTMLElement} main the labeling page's main element, which holds token and rater
 * @returns {{get: (path: string) => Promise<any>, post: (path: string, body: object) => Promise<any>}}
 */
export function connect(main) {
  let token = main.dataset.csrf;

  const send = (path, body) =>
    request(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
      body: JSON.stringify(body),
    });

  /** Whether the page, asked for again, comes with another token: somebody logged in since. */
  async function renewed() {
    const answer = await reach(location.pathname, { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#labeling");
    if (answer.status === 401 || answer.redirected) throw new Refused(401, "you are logged out");
    if (!page || page.dataset.csrf === token) return false;
    if (page.dataset.rater !== main.dataset.rater) location.reload();
    token = page.dataset.csrf;
    return true;
  }

  async function post(path, body) {
    try {
      return await send(path, body);
    } catch (error) {
      if (![401, 403].includes(error.status) || !(await renewed())) throw error;
      return send(path, body);
    }
  }

  return { get: (path) => request(path), post };
}

async function request(path, options) {
  const answer = await reach(path, { ...options, redirect: "error" });
  const said = await answer.json().catch(() => null);
  if (answer.ok && said) return said;
  const wait = Number(answer.headers.get("Retry-After")) || 0;
  throw new Refused(answer.ok ? 0 : answer.status, said?.error ?? `the server said ${answer.status}`, wait);
}

async function reach(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", signal: AbortSignal.timeout(TIMEOUT), ...options });
  } catch (error) {
    throw new Refused(0, `the server was not reached: ${error.message}`);
  }
}
