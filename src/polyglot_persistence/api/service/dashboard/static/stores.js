// The four stores, and what still works while one of them is away.
import { Panel, html } from "./html.js";

const ROLES = [
  ["cache", "Cache", "Orders are accepted through the queue, and read from PostgreSQL. How many wait is not known meanwhile."],
  ["queue", "Queue", "Orders are accepted into the cache, and persisted from there some seconds later."],
  ["record", "Record", "Orders are accepted, and read from the cache; they are persisted once it is back. Lists, sales and dead letters wait for it."],
  ["search", "Search", "Everything but search works. What is persisted meanwhile becomes searchable once it is back."],
];
const REFUSING = "Cache and queue are both away: new orders are refused with 503 until one of them is back. Nothing accepted is lost.";

export const isUp = (health, role) => health?.stores?.[role]?.up ?? true;

function explanations(health) {
  const away = ROLES.filter(([role]) => !isUp(health, role));
  const names = away.map(([role]) => role);
  if (names.includes("cache") && names.includes("queue")) {
    const rest = away.filter(([role]) => role !== "cache" && role !== "queue");
    return [["Cache and queue", REFUSING], ...rest.map(([, name, words]) => [name, words])];
  }
  return away.map(([, name, words]) => [name, words]);
}

function Store({ name, store }) {
  const state = store === undefined ? "unknown" : store.up ? "up" : "away";
  return html`<li class="store ${state}">
    <span class="dot" aria-hidden="true"></span>
    <span class="store-name">${name}</span>
    <span class="state">${state === "unknown" ? "not known yet" : state}</span>
    <span class="quiet detail" title=${store?.error ?? store?.version}>${store?.up === false ? store.error : store?.version}</span>
    ${store?.warnings?.map((words) => html`<span class="warning">${words}</span>`)}
  </li>`;
}

const COLD = "It was emptied, or orders were accepted without it. What is known is served as always; an id that is not found is answered 503 instead of 404, until the queue has been worked off.";

export class Stores extends Panel {
  render({ health, cold }) {
    return html`<section aria-labelledby="stores">
      <h2 id="stores" class="hidden">Stores</h2>
      <ul class="stores">
        ${ROLES.map(([role, name]) => html`<${Store} key=${role} name=${name} store=${health?.stores?.[role]} />`)}
      </ul>
      <div role="status">
        ${cold && isUp(health, "cache") && html`<p class="notice"><b>Cache cold.</b> ${COLD}</p>`}
        ${explanations(health).map(([name, words]) => html`<p class="notice" key=${name}>
          <b>${name} away.</b> ${words}
        </p>`)}
      </div>
    </section>`;
  }
}
