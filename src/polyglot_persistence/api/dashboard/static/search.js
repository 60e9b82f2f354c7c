// Search as you type.
import { address, ask, query } from "./api.js";
import { amount, dateAndTime, delay, plural } from "./format.js";
import { Panel, createRef, html } from "./html.js";

const PAUSE_MS = 120;
const HITS = 8;

export class Search extends Panel {
  input = createRef();
  state = { text: address.get("q"), found: null, problem: "", said: "" };

  componentDidMount() {
    addEventListener("keydown", this.shortcut);
    if (this.state.text) this.search();
  }

  componentWillUnmount() {
    removeEventListener("keydown", this.shortcut);
  }

  componentDidUpdate({ up }) {
    if (this.props.up && !up && this.state.text) this.search();
  }

  shortcut = (event) => {
    const typing = /^(input|textarea|select)$/i.test(event.target.tagName ?? "");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.input.current.focus();
    }
  };

  typed = (event) => {
    this.setState({ text: event.target.value });
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.search(), PAUSE_MS);
  };

  async search() {
    this.running?.abort();
    const text = this.state.text.trim();
    address.set({ q: text });
    if (!text) {
      this.setState({ found: null, problem: "", said: "" });
      return;
    }
    this.running = new AbortController();
    try {
      const found = await ask(`/api/search${query({ q: text, limit: HITS })}`, { signal: this.running.signal });
      const said = found.total ? plural(found.total, "order") : `Nothing found for ${text}`;
      this.setState({ found, problem: "", said });
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.setState({ found: null, problem: problem.message, said: "" });
      if (problem.needsKey) this.props.askForKey();
    }
  }

  render({ follow, up }, { text, found, problem, said }) {
    return html`<section class="panel" aria-labelledby="search">
      <h2 id="search">Search</h2>
      <form role="search" onSubmit=${(event) => event.preventDefault()}>
        <div class="field">
          <label for="query">Products, by words, beginnings or with a typo <kbd>/</kbd></label>
          <input id="query" type="search" ref=${this.input} value=${text} maxlength="200" autocomplete="off" onInput=${this.typed} />
        </div>
      </form>
      <p class="quiet result-line" role="status">${said}${found ? html`<span aria-hidden="true"> in ${delay(found.took_ms)}</span>` : ""}</p>
      ${problem && html`<p class="problem" role="alert">${up ? problem : "Search is away; it will be asked again once it is back."}</p>`}
      <ul class="hits">
        ${found?.hits.map((hit) => html`<li key=${hit.id}>
          <button class="hit" onClick=${() => follow(hit)}>
            <span class="hit-name">${hit.product_name}</span>
            <span class="amount">${amount(hit.amount)}</span>
            <span class="quiet">${dateAndTime(hit.created_at)}</span>
          </button>
        </li>`)}
      </ul>
    </section>`;
  }
}
