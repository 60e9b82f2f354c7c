// The page: one stream of figures and health, and the panels that it keeps up to date.
import { key, takeKeyOfLink } from "./api.js";
import { DeadLetters } from "./dead-letters.js";
import { Figures, History, columnsOf } from "./figures.js";
import { timeOfDay } from "./format.js";
import { Panel, createRef, html, render } from "./html.js";
import { Orders } from "./orders.js";
import { Sales } from "./sales.js";
import { Search } from "./search.js";
import { Stores, isUp } from "./stores.js";
import { listen } from "./stream.js";

class KeyDialog extends Panel {
  dialog = createRef();
  input = createRef();

  componentDidUpdate({ asked }) {
    if (this.props.asked > asked && !this.dialog.current.open) this.dialog.current.showModal();
  }

  use = (event) => {
    event.preventDefault();
    this.props.use(this.input.current.value.trim());
    this.input.current.value = "";
    this.dialog.current.close();
  };

  render({ use, keyed }) {
    return html`<dialog ref=${this.dialog} aria-labelledby="key-title">
      <form method="dialog" onSubmit=${this.use}>
        <h2 id="key-title">API key</h2>
        <div class="field">
          <label for="key">Sent with every request of this tab, and forgotten when it is closed</label>
          <input id="key" type="password" autocomplete="off" ref=${this.input} />
        </div>
        <div class="actions">
          <button type="button" onClick=${() => this.dialog.current.close()}>Cancel</button>
          ${keyed && html`<button type="button" onClick=${() => { use(""); this.dialog.current.close(); }}>Forget the key</button>`}
          <button class="primary">Use the key</button>
        </div>
      </form>
    </dialog>`;
  }
}

class App extends Panel {
  history = new History();
  state = {
    now: null,
    columns: columnsOf(this.history),
    health: null,
    connected: false,
    lost: null,
    wanted: null,
    keyed: key.get(),
    keyAsked: 0, // how often
  };

  componentDidMount() {
    this.stream = listen("api/live", {
      onEvent: (name, data) => (name === "health" ? this.setState({ health: data }) : this.figures(data)),
      onState: (connected, problem) => this.setState({ connected, lost: connected ? null : { problem } }),
    });
  }

  figures(figures) {
    this.history.add(figures);
    this.setState({ now: figures.at(-1), columns: columnsOf(this.history) });
  }

  askForKey = () => this.setState(({ keyAsked }) => ({ keyAsked: keyAsked + 1 }));

  useKey = (text) => {
    key.set(text);
    this.setState({ keyed: text });
    this.stream.again();
  };

  follow = ({ id, product_name, amount }) => {
    this.setState({ wanted: { id, product_name, amount } });
    document.getElementById("place").scrollIntoView({ block: "nearest" });
  };

  mode() {
    const { connected, lost, health } = this.state;
    if (lost) return ["lost", "Not connected"];
    if (!connected || !health) return ["unknown", "Connecting"];
    if (health.mode === "normal") return ["up", "Normal"];
    return [health.status === "ready" ? "degraded" : "lost", health.mode.replace(/^d/, "D")];
  }

  lost() {
    const { lost, now } = this.state;
    if (!lost) return null;
    const { problem } = lost;
    if (problem?.needsKey) {
      return html`<p class="notice">The live figures need a key. <button onClick=${this.askForKey}>Enter a key</button></p>`;
    }
    const why = problem?.status ? problem.message : "The service does not answer.";
    const since = now ? ` The figures are of ${timeOfDay(now.at)}.` : "";
    return html`<p class="notice"><b>No live figures.</b> ${why} Trying again.${since}</p>`;
  }

  render(_properties, { now, columns, health, wanted, keyed, keyAsked, lost }) {
    const [style, words] = this.mode();
    const record = isUp(health, "record");
    const refreshedAt = now?.view_refreshed_at ?? null;
    const viewAge = refreshedAt && (Date.parse(now.at) - Date.parse(refreshedAt)) / 1000;
    return html`
      <a class="skip" href="#main">To the content</a>
      <header>
        <h1>polyglot-persistence</h1>
        <p class="mode ${style}" role="status"><span class="dot" aria-hidden="true"></span>${words}</p>
        <nav aria-label="Elsewhere">
          <a href="docs">API</a>
          <a href="metrics">Metrics</a>
          <button class="bare" onClick=${this.askForKey}>${keyed ? "Key in use" : "Key"}</button>
        </nav>
      </header>
      <main id="main">
        <div role="status">${this.lost()}</div>
        <${Stores} health=${health} cold=${now?.cold === true} />
        <${Figures} now=${now} columns=${columns} stale=${Boolean(lost)} />
        <div class="pair">
          <${Orders} wanted=${wanted} askForKey=${this.askForKey} />
          <${Search} follow=${this.follow} up=${isUp(health, "search")} keyed=${keyed} askForKey=${this.askForKey} />
        </div>
        <${Sales} persisted=${now?.persisted} viewAge=${viewAge} up=${record} keyed=${keyed} askForKey=${this.askForKey} />
        <${DeadLetters} known=${now?.dead_letters} latest=${now?.latest_dead_letter} up=${record} keyed=${keyed} askForKey=${this.askForKey} />
      </main>
      <${KeyDialog} asked=${keyAsked} use=${this.useKey} keyed=${keyed} />`;
  }
}

takeKeyOfLink();
render(html`<${App} />`, document.getElementById("app"));
