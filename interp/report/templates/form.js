"use strict";
// One item at a time: pictures, scales, an optional text to edit, a comment. Answers are kept in localStorage after
// every change and leave the page only as a file. All texts reach the page as text, never as markup.
const form = JSON.parse(document.getElementById("form").textContent);
const at = id => document.getElementById(id);
const stored = `interp form ${form.id}`;
const places = new Map(form.items.map((item, place) => [item.key, place]));
let by = "", place = 0, active = 0, keeps = true;
let answers = new Map();  // item key → {values: {scale: value}, text?, comment?}

const capital = text => text.slice(0, 1).toUpperCase() + text.slice(1);
const answer = key => answers.get(key) || {values: {}};
const finished = item => form.scales.every(scale => scale.name in answer(item.key).values);
const touched = one => Object.keys(one.values).length > 0 || "text" in one || "comment" in one;

function made(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").className = bad ? "bad" : "";
}

function exported() {
  const kept = form.items.filter(item => touched(answer(item.key)));
  return {
    format: form.format, version: form.version, form: form.id, by: by.trim(),
    answers: kept.map(item => ({item: item.key, ...answer(item.key)})),
  };
}

function record(given) {
  return given !== null && typeof given === "object" && !Array.isArray(given);
}

// The answers of a file or of the store as a Map; throws an Error that says what is wrong.
function checked(data) {
  if (!record(data) || data.format !== form.format) throw new Error("it does not hold answers to such a page");
  if (data.version !== form.version) throw new Error(`it is of version ${data.version}, this page of ${form.version}`);
  if (data.form !== form.id) throw new Error("it answers another page: its samples or scales differ");
  if (typeof data.by !== "string" || !Array.isArray(data.answers)) throw new Error("its name or answers are missing");
  const found = new Map();
  for (const one of data.answers) {
    if (!record(one) || !places.has(one.item) || found.has(one.item) || !record(one.values))
      throw new Error("an answer is to no item of this page, or is given twice");
    const values = {};
    for (const [name, value] of Object.entries(one.values)) {
      const scale = form.scales.find(scale => scale.name === name);
      if (!scale || !scale.options.some(option => option.value === value))
        throw new Error(`item ${places.get(one.item) + 1} has a value that is not on the scale`);
      values[name] = value;
    }
    const own = {values};
    for (const name of ["text", "comment"]) {
      if (!(name in one)) continue;
      if (typeof one[name] !== "string") throw new Error(`the ${name} of item ${places.get(one.item) + 1} is no text`);
      own[name] = one[name];
    }
    found.set(one.item, own);
  }
  return found;
}

function keep() {
  try {
    localStorage.setItem(stored, JSON.stringify({...exported(), place}));
    keeps = true;
  } catch {
    if (keeps) say("This browser does not store answers for this page: save them to a file before you leave.", true);
    keeps = false;
  }
}

function count(n) {
  return `${n} ${form.noun}${n === 1 ? "" : "s"}`;
}

function restore() {
  let text = null;
  try { text = localStorage.getItem(stored); } catch { keeps = false; }
  if (text === null) return;
  try {
    const data = JSON.parse(text);
    answers = checked(data);
    by = data.by;
    place = Number.isInteger(data.place) && data.place >= 0 && data.place < form.items.length ? data.place : 0;
    say(`${count(answers.size)} with answers ${answers.size === 1 ? "was" : "were"} found in this browser.`);
  } catch (error) {
    say(`Stored answers could not be read: ${error.message}.`, true);
  }
}

function change(key, edit) {
  const one = {...answer(key), values: {...answer(key).values}};
  edit(one);
  if (touched(one)) answers.set(key, one); else answers.delete(key);
  keep();
  progress();
}

function progress() {
  const done = form.items.filter(finished).length;
  at("count").textContent = `${done} of ${form.items.length} finished`;
  at("progress").value = done;
  at("unfinished").disabled = done === form.items.length;
  [...at("jump").options].forEach((option, i) => {
    option.textContent = `${i + 1}${finished(form.items[i]) ? " ✓" : ""}`;
  });
}

function choose(scale, option) {
  change(form.items[place].key, one => { one.values[scale.name] = option.value; });
  const input = document.querySelector(`input[name="${CSS.escape(scale.name)}"][value="${CSS.escape(String(option.value))}"]`);
  if (input) input.checked = true;
}

function activate(number) {
  active = Math.max(0, Math.min(number, form.scales.length - 1));
  document.querySelectorAll("fieldset").forEach((one, i) => one.classList.toggle("active", i === active));
}

function shown(picture) {
  const n = picture.views.length;
  const figures = picture.views.map((view, i) => {
    const image = made("img", {src: picture.src, alt: view.alt});
    image.style.aspectRatio = `${picture.width / n} / ${picture.height}`;
    image.style.objectPosition = n > 1 ? `${100 * i / (n - 1)}% 0` : "0 0";
    const figure = made("figure", {}, image, made("figcaption", {textContent: view.caption}));
    figure.style.maxWidth = `calc(72vh * ${picture.width / n / picture.height})`;
    return figure;
  });
  const group = made("div", {className: "views"}, ...figures);
  group.style.setProperty("--views", n);
  return group;
}

function fieldset(scale, number) {
  const set = made("fieldset", {}, made("legend", {textContent: scale.label}));
  if (scale.words) set.append(made("p", {textContent: scale.words, className: "soft"}));
  const value = answer(form.items[place].key).values[scale.name];
  for (const option of scale.options) {
    const input = made("input", {type: "radio", name: scale.name, value: option.value, checked: option.value === value});
    input.addEventListener("change", () => choose(scale, option));
    const words = option.label === String(option.value) ? [] : [made("span", {textContent: option.label})];
    const label = made("label", {className: words.length ? "option said" : "option"}, input);
    if (!words.length || Number.isInteger(option.value)) label.append(made("b", {textContent: String(option.value)}));
    label.append(...words);
    if (!Number.isInteger(option.value)) label.append(made("kbd", {textContent: option.key, ariaHidden: "true"}));
    set.append(label);
  }
  set.addEventListener("focusin", () => activate(number));
  return set;
}

function editor(item) {
  const area = made("textarea", {id: "text", rows: 2, maxLength: 5000, value: answer(item.key).text ?? item.text});
  const back = made("button", {type: "button", textContent: "Restore the original"});
  const mark = () => { back.hidden = area.value === item.text; };
  area.addEventListener("input", () => {
    change(item.key, one => {
      if (area.value === item.text || !area.value.trim()) delete one.text; else one.text = area.value;
    });
    mark();
  });
  back.addEventListener("click", () => {
    area.value = item.text;
    area.dispatchEvent(new Event("input"));
    area.focus();
  });
  mark();
  return [made("label", {htmlFor: "text", textContent: form.text_label}), area, back];
}

function commenting(item) {
  const area = made("textarea", {id: "comment", rows: 2, maxLength: 5000, value: answer(item.key).comment ?? ""});
  area.addEventListener("input", () => change(item.key, one => {
    if (area.value) one.comment = area.value; else delete one.comment;
  }));
  return [made("label", {htmlFor: "comment", textContent: "Comment (optional)"}), area];
}

function facts(item) {
  if (!item.facts.length) return [];
  const list = made("dl", {className: "facts"});
  for (const [term, words] of item.facts)
    list.append(made("div", {}, made("dt", {textContent: term}), made("dd", {textContent: words})));
  return [list];
}

function show(number, focus = true) {
  place = Math.max(0, Math.min(number, form.items.length - 1));
  const item = form.items[place];
  at("place").textContent = `${capital(form.noun)} ${place + 1} of ${form.items.length}`;
  document.querySelector(".sides").classList.toggle("broad", item.pictures.some(one => one.views.length > 1));
  at("pictures").replaceChildren(...item.pictures.map(shown));
  const asked = form.text_label ? editor(item) : [made("p", {className: "asked", textContent: item.text})];
  at("answers").replaceChildren(...asked, ...facts(item), ...form.scales.map(fieldset), ...commenting(item));
  at("previous").disabled = place === 0;
  at("next").disabled = place === form.items.length - 1;
  at("jump").value = String(place);
  const open = form.scales.findIndex(scale => !(scale.name in answer(item.key).values));
  activate(open < 0 ? 0 : open);
  if (focus) {
    at("help").open = false;
    at("place").focus();
    at("place").scrollIntoView();
  }
  keep();
}

function unfinished() {
  for (let step = 1; step <= form.items.length; step++) {
    const number = (place + step) % form.items.length;
    if (!finished(form.items[number])) return show(number);
  }
  say(`Every ${form.noun} is finished.`);
}

function download() {
  if (!by.trim()) {
    say("Enter your name or code first: it tells your answers from those of others.", true);
    at("by").focus();
    return;
  }
  const link = made("a", {
    href: URL.createObjectURL(new Blob([JSON.stringify(exported(), null, 1) + "\n"], {type: "application/json"})),
    download: `${form.stem}-${by.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "answers"}.json`,
  });
  link.click();
  URL.revokeObjectURL(link.href);
  const left = form.items.filter(item => !finished(item)).length;
  say(`Saved. ${left ? `${count(left)} ${left === 1 ? "is" : "are"} not finished.` : `Every ${form.noun} is finished.`}`);
}

async function take(file) {
  try {
    const data = JSON.parse(await file.text());
    const found = checked(data);
    if (answers.size && !confirm("Replace the answers on this page by those of the file?")) return;
    answers = found;
    by = at("by").value = data.by;
    progress();
    show(place);
    say(`Loaded the answers of ${by || "nobody named"}: ${count(found.size)}.`);
  } catch (error) {
    say(`The file was not loaded: ${error.message}.`, true);
  }
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest("textarea, input[type=text], select");
  if (field) {
    if (event.key === "Escape") { field.blur(); at("place").focus(); }
    return;
  }
  if (!at("shortcuts").checked) return;
  const key = event.key.toLowerCase();
  const scale = form.scales[active];
  const option = scale.options.find(one => one.key === key);
  if (option) {
    choose(scale, option);
    say(Number.isInteger(option.value) ? `${scale.label}: ${option.value}` : `Chosen: ${option.label}`);
    const next = form.scales.findIndex((one, i) => i > active && !(one.name in answer(form.items[place].key).values));
    if (next >= 0) activate(next);
    document.querySelectorAll("fieldset")[active].scrollIntoView({block: "nearest"});
  } else if (key === "n") show(place + 1);
  else if (key === "p") show(place - 1);
  else if (key === "u") unfinished();
  else if (key === "e" && form.text_label) at("text").focus();
  else return;
  event.preventDefault();
}

form.items.forEach((_, i) => at("jump").append(made("option", {value: String(i)})));
restore();
at("by").value = by;
at("by").addEventListener("input", () => { by = at("by").value; keep(); });
at("export").addEventListener("click", download);
at("import-button").addEventListener("click", () => at("import").click());
at("import").addEventListener("change", event => {
  if (event.target.files.length) take(event.target.files[0]);
  event.target.value = "";
});
at("previous").addEventListener("click", () => show(place - 1));
at("next").addEventListener("click", () => show(place + 1));
at("unfinished").addEventListener("click", unfinished);
at("jump").addEventListener("change", () => show(Number(at("jump").value)));
at("answers").addEventListener("submit", event => event.preventDefault());
document.addEventListener("keydown", pressed);
at("help").open = answers.size === 0;
progress();
show(place, false);
