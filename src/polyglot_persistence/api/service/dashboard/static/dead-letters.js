// Dead letters by reason: what is in them, and replaying or discarding one or all that match.
import { ask, post, query } from "./api.js";
import { count, dateAndTime, plural } from "./format.js";
import { Panel, Trouble, createRef, html } from "./html.js";

const PATH = "api/admin/dead-letters";
const LETTERS = 20;
const WORDS = {
  replay: { verb: "Replay", what: "tried again", done: "replayed" },
  discard: { verb: "Discard", what: "deleted for good, orders and all", done: "discarded" },
};

// A group's reason has <id> and <n> where ids and positions stood: the longest part between them is
// text that the reason of every letter in the group holds.
const fragment = (reason) =>
  reason.split(/<id>|<n>/).reduce((one, other) => (other.length > one.length ? other : one), "").trim().slice(0, 200);

const handled = (out) => out.persisted + out.reindexed + out.discarded;

function outcome(verb, done, kept) {
  const rest = kept ? `; ${plural(kept, "letter")} could not be and ${kept === 1 ? "is" : "are"} still there` : "";
  return `${plural(done, "letter")} ${WORDS[verb].done}${rest}.`;
}

function readable(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

class Letter extends Panel {
  state = { payload: null, problem: "" };

  opened = async (event) => {
    if (!event.target.open || this.state.payload !== null) return;
    try {
      const letter = await ask(`${PATH}/${this.props.letter.id}`);
      this.setState({ payload: letter.payload === null ? `(no UTF-8; base64) ${letter.payload_base64}` : readable(letter.payload) });
    } catch (problem) {
      this.setState({ problem: problem.message });
    }
  };

  render({ letter, act, busy }, { payload, problem }) {
    const name = letter.order_id ?? `letter ${letter.id}`;
    return html`<li class="letter">
      <p><span class="id">${name}</span> <span class="quiet">${plural(letter.attempts, "attempt")}, last ${dateAndTime(letter.last_at)}</span></p>
      <p class="reason">${letter.reason}</p>
      <details onToggle=${this.opened}>
        <summary>Payload<span class="hidden"> of ${name}</span></summary>
        ${problem ? html`<p class="problem">${problem}</p>` : html`<pre tabindex="0" aria-label=${`Payload of ${name}`}>${payload ?? "…"}</pre>`}
      </details>
      <div class="actions">
        ${Object.entries(WORDS).map(([verb, { verb: word }]) => html`<button key=${verb} disabled=${busy}
          aria-label=${`${word} ${name}`} onClick=${() => act(verb, letter)}>${word}</button>`)}
      </div>
    </li>`;
  }
}

export class DeadLetters extends Panel {
  dialog = createRef();
  heading = createRef();
  state = { reason: "", stage: "", page: null, problem: null, plan: null, busy: false, said: "" };

  componentDidMount() {
    this.load();
  }

  componentDidUpdate({ known, latest, up, keyed }) {
    const now = this.props;
    if (known !== now.known || latest !== now.latest || (now.up && !up) || keyed !== now.keyed) this.load();
  }

  filter() {
    const { reason, stage } = this.state;
    return { ...(reason && { reason }), ...(stage && { stage }) };
  }

  async load(cursor) {
    if (this.state.busy) return;
    try {
      const page = await ask(`${PATH}${query({ ...this.filter(), limit: LETTERS, cursor })}`);
      const before = cursor ? this.state.page : null;
      this.setState({
        problem: null,
        page: before ? { ...before, letters: [...before.letters, ...page.letters], next_cursor: page.next_cursor } : page,
      });
    } catch (problem) {
      this.setState({ problem, ...(problem.needsKey && { page: null }) });
    }
  }

  narrow = (changes) => {
    this.setState(changes);
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.load(), 150);
  };

  // Counted anew and up to this moment: what is confirmed is what is acted on, and no later letter.
  planAll = async (verb, filter) => {
    try {
      const until = new Date().toISOString();
      const { total } = await ask(`${PATH}${query({ ...filter, until, limit: 1 })}`);
      this.open({ verb, total, filter, body: { ...filter, until } });
    } catch (problem) {
      this.setState({ problem });
    }
  };

  planOne = (verb, letter) => this.open({ verb, total: 1, letter });

  open(plan) {
    this.setState({ plan, said: "" }, () => this.dialog.current.showModal());
  }

  act = async () => {
    const { plan } = this.state;
    this.dialog.current.close();
    this.setState({ busy: true, problem: null });
    try {
      await (plan.letter ? this.actOnOne(plan) : this.actOnAll(plan));
    } catch (problem) {
      this.setState({ problem });
    } finally {
      this.setState({ busy: false, plan: null });
      this.heading.current.focus();
      this.load();
    }
  };

  async actOnOne({ verb, letter }) {
    const out = await post(`${PATH}/${letter.id}/${verb}`);
    const why = out.kept_letters.find(({ id }) => id === letter.id)?.detail;
    this.setState({ said: why ? `It is still there: ${why}` : outcome(verb, handled(out), out.kept) });
  }

  async actOnAll({ verb, body, total }) {
    let done = 0;
    let kept = 0;
    let cursor;
    do {
      const out = await post(`${PATH}/${verb}`, { ...body, ...(cursor && { cursor }) });
      done += handled(out);
      kept += out.kept;
      cursor = out.next_cursor;
      this.setState({ said: `${count(done + kept)} of ${count(total)} …` });
    } while (cursor);
    this.setState({ said: outcome(verb, done, kept) });
  }

  confirmation(plan) {
    const { verb, what } = WORDS[plan.verb];
    return html`<h2 id="confirm">${verb} ${plural(plan.total, "dead letter")}?</h2>
      <p>${plan.letter
        ? html`The order <span class="id">${plan.letter.order_id ?? plan.letter.id}</span>, with the rest of its bulk if it is of one, is ${what}.`
        : html`All that match now are ${what}:
            ${plan.filter.stage ? html` stage <b>${plan.filter.stage}</b>` : " every stage"},
            ${plan.filter.reason ? html` reason with <q>${plan.filter.reason}</q>` : " every reason"}.`}</p>
      <div class="actions">
        <button onClick=${() => this.dialog.current.close()}>Cancel</button>
        <button class=${plan.verb === "discard" ? "danger" : "primary"} onClick=${this.act}>${verb} ${count(plan.total)}</button>
      </div>`;
  }

  group(group) {
    const filter = { stage: group.stage, reason: fragment(group.reason) };
    return html`<li key=${`${group.stage} ${group.reason}`} class="group">
      <span class="group-count">${count(group.letters)}</span>
      <div>
        <p class="reason">${group.reason}</p>
        <p class="quiet">stage ${group.stage}, last ${dateAndTime(group.last_at)}</p>
      </div>
      <div class="actions">
        <button aria-label=${`Show: ${group.reason}`} onClick=${() => this.narrow(filter)}>Show</button>
        ${Object.entries(WORDS).map(([verb, { verb: word }]) => html`<button key=${verb} disabled=${this.state.busy}
          aria-label=${`${word} all: ${group.reason}`} onClick=${() => this.planAll(verb, filter)}>${word} all</button>`)}
      </div>
    </li>`;
  }

  filters({ reason, stage }) {
    return html`<form class="row" role="search" onSubmit=${(event) => event.preventDefault()}>
      <div class="field">
        <label for="letters-reason">Reason holds</label>
        <input id="letters-reason" type="search" maxlength="200" autocomplete="off" value=${reason}
          onInput=${(event) => this.narrow({ reason: event.target.value })} />
      </div>
      <div class="field fixed">
        <label for="letters-stage">Stage</label>
        <select id="letters-stage" value=${stage} onChange=${(event) => this.narrow({ stage: event.target.value })}>
          <option value="">any</option>
          ${["decode", "persist", "index"].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
        </select>
      </div>
    </form>`;
  }

  listed({ page, problem, reason, stage, busy }) {
    const narrowed = reason || stage;
    if (page.total === 0) {
      if (problem) return null; // there may be some by now
      return html`<p class="quiet">${narrowed ? "None matches." : "None. Every order so far could be persisted and indexed."}</p>`;
    }
    return html`
      <p class="quiet">${plural(page.total, "letter")}${narrowed ? " match" : ""}, by reason:</p>
      <ul class="groups">${page.groups.map((group) => this.group(group))}</ul>
      <details open=${Boolean(narrowed)}>
        <summary>One by one</summary>
        <ul class="letters">
          ${page.letters.map((letter) => html`<${Letter} key=${letter.id} letter=${letter} busy=${busy} act=${this.planOne} />`)}
        </ul>
        ${page.next_cursor && html`<button onClick=${() => this.load(page.next_cursor)}>Show more</button>`}
      </details>`;
  }

  render({ askForKey }, state) {
    const { page, problem, plan, said, reason, stage } = state;
    const empty = page?.total === 0 && !reason && !stage;
    return html`<section class="panel" aria-labelledby="letters">
      <h2 id="letters" tabindex="-1" ref=${this.heading}>Dead letters</h2>
      <${Trouble} problem=${problem} askForKey=${askForKey} />
      <p class="result-line" role="status">${said}</p>
      ${page && !empty && this.filters(state)}
      ${page && this.listed(state)}
      <dialog ref=${this.dialog} aria-labelledby="confirm">${plan && this.confirmation(plan)}</dialog>
    </section>`;
  }
}
