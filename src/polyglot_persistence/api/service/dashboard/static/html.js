// Preact with htm: templates without a build step and without eval.
import { Component, createRef, h, render } from "./preact.mjs";
import htm from "./htm.mjs";

export { createRef, render };
export const html = htm.bind(h);

const differs = (one, other) =>
  Object.keys(one).length !== Object.keys(other).length ||
  Object.keys(one).some((key) => one[key] !== other[key]);

// What went wrong, in the API's words; if a key would help, with the way to enter one.
export const Trouble = ({ problem, words, askForKey }) =>
  problem?.needsKey
    ? html`<p class="notice" role="alert">${problem.message} <button onClick=${askForKey}>Enter a key</button></p>`
    : problem && html`<p class="problem" role="alert">${words || problem.message}</p>`;

// Draws itself again only if a property or its own state changed: the figures come every second,
// and a panel that they do not concern stays as it is.
export class Panel extends Component {
  shouldComponentUpdate(props, state) {
    return differs(this.props, props) || differs(this.state, state);
  }
}
