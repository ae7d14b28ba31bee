// Makes DOM nodes. Text is always set as text, whatever an id or a line of a log contains.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a child that is a string becomes text. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** A text node that is written only when it changes, since writing costs a layout. */
export class Words {
  constructor(value = "") {
    this.node = document.createTextNode(value);
  }

  set(value) {
    if (this.node.data !== value) this.node.data = value;
  }
}

/** Set an attribute if it differs. */
export function attribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Give a node these children in this order, moving as few as possible. */
export function arrange(parent, children) {
  let next = parent.firstChild;
  for (const child of children) {
    if (child === next) next = next.nextSibling;
    else parent.insertBefore(child, next);
  }
  while (next !== null) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

/** Put a text into the clipboard; also without HTTPS, where browsers have no `navigator.clipboard`. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { class: "hidden-text", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

const SHAPES = {
  running: "M4 2.2v11.6L13.6 8z",
  starting: "M8 1a7 7 0 1 0 7 7h-2.1A4.9 4.9 0 1 1 8 3.1z",
  waiting:
    "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1zm0 2a5 5 0 1 0 0 10A5 5 0 0 0 8 3zm-.9 1.6h1.7v3l2.3 1.7-1 1.4-3-2.2z",
  stalled: "M3.4 2h3.2v12H3.4zM9.4 2h3.2v12H9.4z",
  succeeded: "M13.4 2.6 15 4 6.7 14 1 8.9l1.4-1.6 4.1 3.7z",
  failed: "M3.3 1.9 8 6.6l4.7-4.7 1.4 1.4L9.4 8l4.7 4.7-1.4 1.4L8 9.4l-4.7 4.7-1.4-1.4L6.6 8 1.9 3.3z",
  expired: "M8 1 15.6 14.6H.4zM7.1 6v4.4h1.8V6zm0 5.4v1.7h1.8v-1.7z",
  unreachable:
    "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1zM4.2 5.5a4.9 4.9 0 0 0 6.3 6.3zm1.3-1.3 6.3 6.3a4.9 4.9 0 0 0-6.3-6.3z",
};
const SVG = "http://www.w3.org/2000/svg";

/** The icon of a state; its shape differs, not only its colour. */
export function icon(state) {
  const image = document.createElementNS(SVG, "svg");
  image.setAttribute("viewBox", "0 0 16 16");
  image.setAttribute("class", "icon");
  image.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SHAPES[state] ?? SHAPES.waiting);
  path.setAttribute("fill-rule", "evenodd");
  image.append(path);
  return image;
}
