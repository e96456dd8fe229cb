// /openapi.json as a page: every endpoint with its parameters, bodies and answers.

const made = (name, text, ...children) => {
  const element = document.createElement(name);
  element.textContent = text;
  element.append(...children);
  return element;
};

function list(title, entries) {
  if (entries.length === 0) return [];
  const items = entries.map(([name, text]) => made("li", "", made("code", name), ` ${text}`));
  return [made("h3", title), made("ul", "", ...items)];
}

function endpoint(path, method, operation) {
  const parameters = (operation.parameters ?? []).map((each) => [
    each.name, `${each.in}${each.required ? ", required" : ""}. ${each.description ?? ""}`,
  ]);
  const bodies = Object.keys(operation.requestBody?.content ?? {}).map((type) => [type, ""]);
  const answers = Object.entries(operation.responses).map(([status, each]) => [status, each.description]);
  return made("section", "",
    made("h2", `${method.toUpperCase()} ${path}`), made("p", operation.summary),
    ...list("Parameters", parameters), ...list("Body", bodies), ...list("Answers", answers));
}

const description = await (await fetch("/openapi.json")).json();
const sections = Object.entries(description.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => endpoint(path, method, operation)));
document.getElementById("endpoints").replaceChildren(made("p", description.info.description), ...sections);
