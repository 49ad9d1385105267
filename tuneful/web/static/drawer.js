/** The instructions beside the work: which version, and once after a new one what changed. */

import { recall, remember } from "./settings.js";
import { make } from "./texts.js";

const BLOCKS = "p, li, h1, h2, h3, h4, h5, h6, pre, tr";

export class Drawer {
  /**
   * @param {HTMLElement} panel
   * @param {HTMLElement} button that stands for it
   * @param {{get: (path: string) => Promise<any>, project: string, onfirst: () => void, onread: () => void}} options
   *   onfirst: this browser has never opened the instructions; onread: they are open
   */
  constructor(panel, button, options) {
    Object.assign(this, { panel, button }, options);
    this.id = null;
    this.name = `tuneful.instructions.${this.project}`;
    panel.querySelector("#instructions-close").addEventListener("click", () => this.toggle(false));
    panel.addEventListener("keydown", (event) => event.key === "Escape" && this.toggle(false));
  }

  /** Fetch the newest version. After another one was read, it opens the drawer. */
  async load() {
    const guide = await this.get(`/p/${this.project}/instructions`);
    const before = this.id ?? recall(this.name);
    this.id = guide.id;
    this.panel.querySelector("#version").textContent = guide.id ? `version ${guide.version}` : "";
    const text = this.panel.querySelector("#guide");
    text.innerHTML = guide.html; // made by the server from Markdown without raw HTML
    if (!guide.id) return text.replaceChildren("There are none for this project.");
    if (!this.panel.hidden) this.#show(true);
    else if (before === null) this.onfirst();
    if (before !== null && before !== guide.id) this.#tellChange(guide);
  }

  toggle(open = this.panel.hidden) {
    if (open) this.from = document.activeElement;
    this.#show(open);
    (open ? this.panel : this.from)?.focus({ preventScroll: true });
  }

  #show(open) {
    this.panel.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    if (!open || !this.id) return;
    remember(this.name, this.id);
    this.onread();
  }

  #tellChange({ version, html, previous_html: previous }) {
    const [before, now] = [blocks(previous ?? ""), blocks(html)];
    const added = now.filter((text) => !before.includes(text)).map((text) => make("ins", { textContent: text }));
    const gone = before.filter((text) => !now.includes(text)).map((text) => make("del", { textContent: text }));
    const lines = [...added, ...gone].map((change) => make("li", { dir: "auto" }, change));
    const box = this.panel.querySelector("#changed");
    box.replaceChildren(make("h3", { textContent: `What changed in version ${version}` }), make("ul", {}, ...lines));
    box.hidden = false;
    this.#show(true);
  }
}

/** The texts of the smallest blocks of a page, in order. */
function blocks(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const innermost = [...page.querySelectorAll(BLOCKS)].filter((block) => !block.querySelector(BLOCKS));
  return innermost.map((block) => block.textContent.trim());
}
