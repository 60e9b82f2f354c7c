// Search as you type, with filters, and what else the matches could be narrowed to.
import { address, ask, query } from "./api.js";
import { amount, count, dateAndTime, delay, monthAndDay, plural } from "./format.js";
import { Panel, Trouble, createRef, html } from "./html.js";

const PAUSE_MS = 120;
const HITS = 6;
const FACETS = 4;
const FILTERS = ["min", "max", "since", "until", "sort"];
const DAY_MS = 86_400_000;

const nextDay = (date) => date && new Date(Date.parse(date) + DAY_MS).toISOString();
const firstMoment = (date) => date && new Date(date).toISOString();

// What the API marked in a name, as elements; its text is never taken for HTML.
const marked = (highlighted) =>
  [...new DOMParser().parseFromString(highlighted, "text/html").body.childNodes].map((node) =>
    node.nodeName === "MARK" ? html`<mark>${node.textContent}</mark>` : node.textContent,
  );

const priceRange = ({ from, to }) => (to === null ? `from ${amount(from)}` : `${amount(from)} – ${amount(to)}`);

function Facet({ title, choices }) {
  if (choices.length < 2) return null;
  return html`<div class="facet" role="group" aria-label=${title}>
    <span class="quiet">${title}</span>
    ${choices.slice(0, FACETS).map(({ name, orders, choose }) => html`<button class="chip" key=${name} onClick=${choose}>
      ${name} <span class="quiet">${count(orders)}</span>
    </button>`)}
  </div>`;
}

export class Search extends Panel {
  input = createRef();
  state = {
    text: address.get("q"),
    ...Object.fromEntries(FILTERS.map((name) => [name, address.get(name)])),
    found: null,
    problem: null,
    said: "",
  };
  open = FILTERS.some((name) => this.state[name]);

  componentDidMount() {
    addEventListener("keydown", this.shortcut);
    this.search();
  }

  componentWillUnmount() {
    removeEventListener("keydown", this.shortcut);
  }

  componentDidUpdate({ up, keyed }) {
    if ((this.props.up && !up) || keyed !== this.props.keyed) this.search();
  }

  shortcut = (event) => {
    const typing = /^(input|textarea|select)$/i.test(event.target.tagName ?? "");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.input.current.focus();
    }
  };

  change(changes, pause = 0) {
    clearTimeout(this.pause);
    this.setState(changes, () => {
      this.pause = setTimeout(() => this.search(), pause);
    });
  }

  asked() {
    const { text, min, max, since, until, sort } = this.state;
    return { q: text.trim(), min, max, from: firstMoment(since), to: nextDay(until), sort };
  }

  async search(cursor) {
    this.running?.abort();
    const asked = this.asked();
    const { text, min, max, since, until, sort } = this.state;
    address.set({ q: text.trim(), min, max, since, until, sort });
    if (!Object.values(asked).some(Boolean)) {
      this.setState({ found: null, problem: null, said: "" });
      return;
    }
    const { signal } = (this.running = new AbortController());
    const facets = this.open ? "true" : "";
    try {
      const found = await ask(`api/search${query({ ...asked, facets, limit: HITS, cursor })}`, { signal });
      const before = cursor ? this.state.found.hits : [];
      const total = `${found.total_is === "at_least" ? "at least " : ""}${plural(found.total, "order")}`;
      this.setState({
        found: { ...found, hits: [...before, ...found.hits] },
        problem: null,
        said: found.total ? total : "Nothing found.",
      });
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.setState({ found: null, problem, said: "" });
    }
  }

  opened = ({ target }) => {
    if (this.open === target.open) return;
    this.open = target.open;
    this.search();
  };

  filter(name, label, attributes) {
    return html`<div class="field">
      <label for=${`search-${name}`}>${label}</label>
      <input id=${`search-${name}`} value=${this.state[name]} ...${attributes}
        onInput=${({ target }) => this.change({ [name]: target.value }, PAUSE_MS)} />
    </div>`;
  }

  filters({ found, sort }) {
    const { prices = [], days = [], products = [] } = found?.facets ?? {};
    const facet = (title, all, name, choice) => html`<${Facet} title=${title} choices=${all.map((one) => ({
      name: name(one), orders: one.orders, choose: () => this.change(choice(one)),
    }))} />`;
    return html`<details open=${this.open} onToggle=${this.opened}>
      <summary>Filters</summary>
      <div class="filters">
        ${this.filter("min", "Amount from", { inputmode: "decimal" })}
        ${this.filter("max", "to", { inputmode: "decimal" })}
        ${this.filter("since", "Day from (UTC)", { type: "date" })}
        ${this.filter("until", "to", { type: "date" })}
        <div class="field">
          <label for="search-sort">Sort by</label>
          <select id="search-sort" value=${sort} onChange=${({ target }) => this.change({ sort: target.value })}>
            <option value="">relevance</option><option value="newest">newest</option><option value="amount">amount</option>
          </select>
        </div>
      </div>
      ${facet("Amount", prices, priceRange, ({ from, to }) => ({ min: from.toFixed(2), max: to === null ? "" : (to - 0.01).toFixed(2) }))}
      ${facet("Day", days, ({ day }) => monthAndDay(day), ({ day }) => ({ since: day, until: day }))}
      ${facet("Product", products, (one) => one.product_name, (one) => ({ text: one.product_name }))}
    </details>`;
  }

  hits({ found, said }) {
    return html`
      <p class="quiet result-line" role="status">${said}${found ? html`<span aria-hidden="true"> in ${delay(found.took_ms)}</span>` : ""}</p>
      ${found?.did_you_mean && html`<p>Did you mean <button class="bare" onClick=${() => this.change({ text: found.did_you_mean })}>${found.did_you_mean}</button>?</p>`}
      <ul class="hits">
        ${found?.hits.map((hit) => html`<li key=${hit.id}>
          <button class="hit" onClick=${() => this.props.follow(hit)}>
            <span class="hit-name">${marked(hit.highlighted)}</span>
            <span class="amount">${amount(hit.amount)}</span>
            <span class="quiet">${dateAndTime(hit.created_at)}</span>
          </button>
        </li>`)}
      </ul>
      ${found?.next_cursor && html`<button onClick=${() => this.search(found.next_cursor)}>Show more</button>`}`;
  }

  render({ up, askForKey }, state) {
    return html`<section class="panel" aria-labelledby="search">
      <h2 id="search">Search</h2>
      <form role="search" aria-label="Orders" onSubmit=${(event) => event.preventDefault()}>
        <div class="field">
          <label for="query">Products, by words, parts of words or with a typo <kbd>/</kbd></label>
          <input id="query" type="search" ref=${this.input} value=${state.text} maxlength="200" autocomplete="off"
            onInput=${({ target }) => this.change({ text: target.value }, PAUSE_MS)} />
        </div>
        ${this.filters(state)}
      </form>
      <${Trouble} problem=${state.problem} words=${up ? "" : "Search is away; it will be asked again once it is back."} askForKey=${askForKey} />
      ${this.hits(state)}
    </section>`;
  }
}
