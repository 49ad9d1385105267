/** Dragging an answer to a tier, by mouse, pen or finger. Everything it does can be done by clicks as well. */

const FAR_ENOUGH = 6;

/**
 * @param {HTMLElement} root within which handles and zones lie
 * @param {(answer: string, tier: number) => void} ondrop
 */
export function letDrag(root, ondrop) {
  root.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest(".handle, .chip");
    const answer = handle?.closest("[data-answer]")?.dataset.answer;
    const hasRail = root.querySelector("[data-tier]");
    if (answer && hasRail && event.isPrimary && event.button === 0) follow(handle, answer, event, ondrop);
  });
}

function follow(handle, answer, start, ondrop) {
  let ghost = null;
  let zone = null;
  const stop = new AbortController();
  const listen = (name, listener) => addEventListener(name, listener, { signal: stop.signal });

  listen("pointermove", (event) => {
    if (event.pointerId !== start.pointerId) return;
    const far = Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) >= FAR_ENOUGH;
    if (!ghost && !far) return;
    ghost ??= lift(handle, start.pointerId);
    ghost.style.translate = `${event.clientX}px ${event.clientY}px`;
    const over = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-tier]") ?? null;
    if (over === zone) return;
    zone?.classList.remove("over");
    zone = over;
    zone?.classList.add("over");
  });

  function end(event) {
    if (event.pointerId !== undefined && event.pointerId !== start.pointerId) return;
    if (event.key && event.key !== "Escape") return;
    stop.abort();
    ghost?.remove();
    zone?.classList.remove("over");
    if (event.type === "pointerup" && zone) ondrop(answer, Number(zone.dataset.tier));
  }
  for (const name of ["pointerup", "pointercancel", "keydown"]) listen(name, end);
}

/** What hangs at the pointer while it moves: the answer's letter. */
function lift(handle, pointer) {
  handle.setPointerCapture(pointer);
  const ghost = document.createElement("div");
  ghost.className = "ghost";
  ghost.textContent = handle.closest("[data-letter]")?.dataset.letter ?? handle.textContent;
  document.body.append(ghost);
  return ghost;
}
