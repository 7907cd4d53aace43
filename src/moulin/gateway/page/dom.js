// Short forms for elements.

export const byId = (id) => document.getElementById(id);

// An element with these properties and children; text is never taken for HTML.
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const button = (label, onclick, properties = {}) =>
  element("button", { type: "button", className: "quiet", textContent: label, onclick, ...properties });
