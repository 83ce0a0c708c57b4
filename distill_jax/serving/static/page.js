"use strict";

const form = document.getElementById("ask");
const shown = document.getElementById("answer");

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function bars(probabilities) {
  const table = element("table");
  table.append(element("caption", "Probabilities"));
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  for (const [name, probability] of sorted) {
    const percent = `${(100 * probability).toFixed(1)}%`;
    const heading = element("th", name);
    heading.scope = "row";
    const bar = element("meter");
    bar.max = 1;
    bar.value = probability;
    bar.setAttribute("aria-label", `${name}: ${percent}`);
    const cell = element("td");
    cell.append(bar);
    const row = element("tr");
    row.append(heading, cell, element("td", percent, "number"));
    table.append(row);
  }
  return table;
}

function list(entities) {
  const table = element("table");
  table.append(element("caption", "Entities, and the characters that they stand at"));
  for (const entity of entities) {
    const heading = element("th", entity.type);
    heading.scope = "row";
    const row = element("tr");
    row.append(heading, element("td", entity.text), element("td", `${entity.start} to ${entity.end}`, "number"));
    table.append(row);
  }
  return table;
}

function show(answer) {
  if (answer === null) {
    shown.replaceChildren(element("p", "A blank text has no answer."));
    return;
  }
  const said = element("p");
  if (answer.label) said.append(element("strong", answer.label, "label"));
  else said.textContent = "The model found nothing.";
  shown.replaceChildren(said);
  if (answer.probabilities) shown.append(bars(answer.probabilities));
  if (answer.entities && answer.entities.length) shown.append(list(answer.entities));
  if (answer.truncated) shown.append(element("p", "The text was cut: the model read its beginning."));
}

function fail(message) {
  shown.replaceChildren(element("p", message, "error"));
}

async function ask() {
  const asked = {};
  for (const box of form.querySelectorAll("textarea")) asked[box.name] = box.value;
  const headers = { "Content-Type": "application/json" };
  const token = document.getElementById("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch("/predict", { method: "POST", headers, body: JSON.stringify(asked) });
  const said = await response.json();
  if (response.status === 401) {
    document.getElementById("secret").hidden = false;
    document.getElementById("token").focus();
  }
  if (response.ok) show(said.answers[0]);
  else fail(said.detail);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask().catch((error) => fail(`No answer: ${error.message}`));
});
