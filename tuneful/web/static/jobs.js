/** How far jobs are, asked for every few seconds while one of them is not over; the rest of the page stays as it is. */

const EVERY = 2_000;

const jobs = document.querySelector("[data-jobs]");
const news = document.querySelector("[data-news]");
const rows = new Map([...document.querySelectorAll("[data-job]")].map((row) => [row.dataset.job, row]));

const isOver = (state) => !["waiting", "running"].includes(state);
const anyOpen = () => [...rows.values()].some((row) => !isOver(row.dataset.state));

function show(job) {
  const row = rows.get(job.id);
  if (!row) return;
  const part = (name) => row.querySelector(`[data-${name}]`);
  const bar = row.querySelector("progress");
  if (bar && job.total) {
    bar.max = job.total;
    bar.value = job.done;
  }
  const count = part("count");
  if (count) count.textContent = `${job.done} of ${job.total}`;
  part("state-name").textContent = job.state;
  part("message").textContent = job.message ? `: ${job.message}` : "";
  if (isOver(job.state)) {
    row.querySelector("form")?.remove();
    part("then")?.removeAttribute("hidden");
    if (!count) bar?.remove();
    if (!isOver(row.dataset.state)) news.textContent = `A job is ${job.state}${job.message ? `: ${job.message}` : ""}.`;
  }
  row.dataset.state = job.state;
}

async function look() {
  try {
    const answer = await fetch(jobs.dataset.jobs, { credentials: "same-origin", signal: AbortSignal.timeout(15_000) });
    if (answer.ok) for (const job of (await answer.json()).jobs) show(job);
    if ([401, 403, 404].includes(answer.status)) return;
  } catch {
    // The server is away; what the page shows stays until it is back.
  }
  if (anyOpen()) setTimeout(look, EVERY);
}

if (anyOpen()) setTimeout(look, EVERY);
