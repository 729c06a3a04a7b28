"use strict";
// What the server keeps is in `state`; what is looked at, in `shown` and `view`. Every change of either is drawn by `draw`.

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
let about, state = { scenes: [], spare: [] }, shown = null, sending = null, drawn = "";
const busy = scene => scene.state === "waiting" || scene.state === "fusing";
const current = () => state.scenes.find(scene => scene.number === shown);

// The server

async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, body === undefined ? {} : { method: "POST", body: JSON.stringify(body) });
  } catch {
    throw new Error("The program does not answer. Was it ended? Start run_app.py again, and reload this page.");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

let timer;
async function refresh() {
  clearTimeout(timer);
  try {
    const before = new Map(state.scenes.map(scene => [scene.number, scene.state]));
    state = await ask("state");
    for (const scene of state.scenes) {
      if (before.get(scene.number) === scene.state) continue;
      if (scene.state === "done") tell(`${scene.name} is done`);
      if (scene.state === "failed") tell(`${scene.name} failed: ${scene.says}`);
    }
    if (!current()) show((state.scenes.find(busy) || state.scenes.at(-1))?.number ?? null);
    lost = false;
    draw();
  } catch (error) {
    if (!lost) complain(error.message);
    lost = true;
  }
  timer = setTimeout(refresh, lost ? 3000 : state.scenes.some(busy) ? 300 : 5000);
}
let lost = false;

async function act(path, body = {}) {
  try { return await ask(path, body); } catch (error) { complain(error.message); } finally { await refresh(); }
}

function tell(text) { $("#news").textContent = text; }  // for screen readers

function complain(text, bad = true) {
  const box = document.createElement("div"), close = document.createElement("button");
  box.className = bad ? "bad" : "";
  box.append(Object.assign(document.createElement("span"), { textContent: text }), close);
  Object.assign(close, { textContent: "Close", type: "button", onclick: () => box.remove() });
  $("#messages").append(box);
}

// Bringing photographs

const endsAs = (name, suffixes) => suffixes.some(suffix => name.toLowerCase().endsWith(suffix));

async function entries(items) {  // of a drop: files, and those in folders, with their paths
  const found = [];
  async function walk(entry, path) {
    if (entry instanceof File) {
      found.push({ name: entry.name, file: entry });
    } else if (entry.isFile) {
      found.push({ name: path + entry.name, file: await new Promise((ok, no) => entry.file(ok, no)) });
    } else {
      const reader = entry.createReader();
      for (let some; (some = await new Promise((ok, no) => reader.readEntries(ok, no))).length;)
        for (const one of some) await walk(one, `${path}${entry.name}/`);
    }
  }
  for (const entry of [...items].map(item => item.webkitGetAsEntry() || item.getAsFile()).filter(Boolean)) await walk(entry, "");
  return found;
}

async function bring(files) {
  if (sending) return complain("Wait until the other photographs are sent, or stop that.");
  const hidden = ({ name }) => name.split("/").some(part => part.startsWith("."));
  const wanted = files.filter(one => !hidden(one) && endsAs(one.name, about.suffixes));
  const others = files.filter(one => !hidden(one) && !endsAs(one.name, about.suffixes));
  if (!wanted.length) return complain(files.length ? `No picture among ${named(files)}.` : "There is nothing in it.");
  $("#messages").replaceChildren();  // what was said of earlier ones
  if (others.length) complain(`Left out, since they are no pictures: ${named(others)}`, false);
  sending = new AbortController();
  const total = wanted.reduce((sum, { file }) => sum + file.size, 0);
  let sent = 0, count = 0;
  try {
    show(null);
    const drop = await ask("drops", { ...options(), count: Number($("#options").elements.count.value) || null });
    for (const { name, file } of wanted) {
      progress(`Sending ${++count} of ${wanted.length}`, sent / total);
      await upload(`drops/${drop}/shots?name=${encodeURIComponent(name)}`, file, part => progress(null, (sent + part) / total));
      sent += file.size;
    }
    progress("Looking which belong together", null);
    const { scenes, notes } = await ask(`drops/${drop}/sort`, {});
    if (notes.length) complain(notes.join("\n"), false);
    await refresh();
    if (scenes.length) show(scenes[0]);
    else if (state.spare.length) tell("The shots belong to no bracket");
  } catch (error) {
    complain(error.message);
  } finally {
    sending = null;
    $("#sending").hidden = true;
    await refresh();
  }
}

function named(files) {
  const names = files.slice(0, 5).map(({ name }) => name).join(", ");
  return files.length > 5 ? `${names} and ${files.length - 5} more` : names;
}

function upload(path, file, progressed) {
  return new Promise((done, failed) => {
    if (file.size > about.bytes) return failed(new Error(`${file.name}: has ${file.size} bytes, expected at most ${about.bytes}`));
    const request = new XMLHttpRequest();  // fetch does not say how much is sent
    const no = text => failed(new Error(`${file.name}: ${text}`));
    request.open("POST", path);
    request.upload.onprogress = event => progressed(event.loaded);
    request.onload = () => request.status === 200 ? done() : failed(new Error(JSON.parse(request.responseText).error));
    request.onerror = () => no("could not be sent: is it still there?");
    request.onabort = () => no("stopped");
    sending.signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

function progress(text, share) {
  $("#sending").hidden = false;
  if (text) $("#sending span").textContent = text;
  const bar = $("#sending progress");
  share === null ? bar.removeAttribute("value") : bar.value = share;
}

// The settings

function options() {
  const form = $("#options").elements;
  return {
    align: form.align.checked ? form.method.value : null,
    deghost: form.deghost.checked,
    reference: form.deghost.checked && form.reference.value ? Number(form.reference.value) : null,
    weights: form.weights.value,
  };
}

const ordered = ({ align, deghost, reference, weights }) => ({ align, deghost, reference, weights });

const last = label => label.split("/").at(-1);  // a name without its folders

function look() {
  const form = $("#look").elements;
  return Object.fromEntries(["brightness", "contrast", "warmth"].map(name => [name, form[name].value / 100]));
}

function fill(scene) {  // the forms with what holds for a scene
  const form = $("#options").elements;
  form.align.checked = scene.options.align !== null;
  if (scene.options.align) form.method.value = scene.options.align;
  form.deghost.checked = scene.options.deghost;
  form.weights.value = scene.options.weights;
  form.reference.replaceChildren(new Option("best exposed", ""));
  for (const shot of scene.shots) form.reference.append(new Option(last(shot.label), shot.number));
  form.reference.value = scene.options.reference ?? "";
  for (const [name, value] of Object.entries(scene.look)) $("#look").elements[name].value = Math.round(value * 100);
}

let changing;
function change() {  // the look, a moment after the last movement
  drawForms();
  clearTimeout(changing);
  const number = shown, wanted = look();
  changing = setTimeout(() => act(`scenes/${number}/look`, wanted), 80);
}

// The picture

const view = { scale: 1, x: 0, y: 0, fitted: true, against: null, split: 50 };
const viewer = $("#viewer");
const slot = selector => ({ element: $(selector), url: "" });  // of an image, and what it shows or will show
const slots = { after: [slot("#after .whole"), slot("#after .part")], before: [slot("#before .whole"), slot("#before .part")] };
const dots = () => window.devicePixelRatio || 1;  // pixels of the screen per pixel of CSS
const fitting = ([width, height]) => Math.min(viewer.clientWidth / width, viewer.clientHeight / height, 1 / dots());

function show(number) {
  if (number === shown) return;
  shown = number;
  Object.assign(view, { fitted: true, against: null });
  Object.values(slots).flat().forEach(clear);
  if (current()) fill(current());
  draw();
}

function clear(slot) { slot.url = ""; slot.element.removeAttribute("src"); }

function load(slot, url, box = null) {  // shows the old picture until the new one is there
  if (slot.url === url) return;
  slot.url = url;
  const next = Object.assign(new Image(), { src: url, alt: "", className: slot.element.className, box });
  next.decode().then(() => {
    if (slot.url !== url) return;
    slot.element.replaceWith(next);
    slot.element = next;
    place();
  }).catch(() => { if (slot.url === url) clear(slot); });
}

function place() {  // puts the layers where `view` says, at whole pixels of the screen, and asks for what is missing
  const scene = current();
  if (scene?.state !== "done") return;
  const [width, height] = scene.size;
  viewer.style.setProperty("--aspect", height / width);
  if (view.fitted) view.scale = fitting(scene.size);
  const room = (space, size) => size <= space ? [(space - size) / 2, (space - size) / 2] : [space - size, 0];
  for (const [axis, space, size] of [["x", viewer.clientWidth, width], ["y", viewer.clientHeight, height]]) {
    const [low, high] = room(space, size * view.scale);
    view[axis] = Math.round((view.fitted ? low : Math.min(Math.max(view[axis], low), high)) * dots()) / dots();
  }
  for (const { element: image } of Object.values(slots).flat()) {
    const [left, top, w, h] = image.box || [0, 0, width, height];
    Object.assign(image.style, {
      width: `${w}px`, height: `${h}px`,  // a transform is not rounded to pixels of CSS, as sizes are
      transform: `translate(${view.x + left * view.scale}px, ${view.y + top * view.scale}px) scale(${view.scale})`,
      imageRendering: view.scale * dots() > 0.999 ? "pixelated" : "auto",
    });
  }
  viewer.style.setProperty("--split", `${18 + (viewer.clientWidth - 36) * view.split / 100}px`);
  $("#scale").textContent = `${Math.round(view.scale * dots() * 100)} %`;
  viewer.dataset.scale = view.scale * dots();
  clearTimeout(view.timer);
  view.timer = setTimeout(sharpen, 120);
}

function sharpen() {  // the pixels themselves of what is seen, where the preview has fewer
  const scene = current();
  if (scene?.state !== "done") return;
  const [width, height] = scene.size;
  const zoom = view.scale * dots();
  for (const [name, which] of sides(scene)) {
    const [whole, part] = slots[name], has = whole.element.naturalWidth;
    if (!has || (zoom < 0.999 && has >= width * zoom)) { clear(part); continue; }
    const shrink = Math.min(16, Math.max(1, Math.floor(1 / zoom)));
    const [left, top] = [view.x, view.y].map(start => Math.max(0, Math.floor(-start / view.scale)));
    const right = Math.min(width, Math.ceil((viewer.clientWidth - view.x) / view.scale));
    const bottom = Math.min(height, Math.ceil((viewer.clientHeight - view.y) / view.scale));
    const box = { left, top, width: right - left, height: bottom - top, shrink, revision: scene.revision };
    if (box.width > 0 && box.height > 0)
      load(part, `scenes/${scene.number}/${which}/part?${new URLSearchParams(box)}`, [left, top, box.width, box.height]);
  }
}

const sides = scene => [["after", "fused"], ...(view.against === null ? [] : [["before", `exposure${view.against}`]])];

function zoom(factor, x = viewer.clientWidth / 2, y = viewer.clientHeight / 2, scale = view.scale * factor) {
  const scene = current();
  if (scene?.state !== "done") return;
  scale = Math.min(Math.max(scale, fitting(scene.size)), 16 / dots());
  if (Math.abs(scale * dots() - 1) < 0.02) scale = 1 / dots();
  view.x = x - (x - view.x) * scale / view.scale;
  view.y = y - (y - view.y) * scale / view.scale;
  Object.assign(view, { scale, fitted: scale <= fitting(scene.size) });
  place();
}

function compare(index) {
  view.against = index;
  clear(slots.before[1]);
  draw();
}

// Drawing

function draw() {
  document.body.classList.toggle("empty", !state.scenes.length && !state.spare.length && !sending);
  drawQueue();
  drawStage();
  drawForms();
  const done = state.scenes.filter(scene => !busy(scene)).length;
  document.title = state.scenes.some(busy) ? `${done} of ${state.scenes.length} · DeepFuse` : "DeepFuse";
}

function keyed(list, items, make, update) {  // keeps the elements that stay, and so the focus
  const old = new Map([...list.children].map(element => [Number(element.dataset.number), element]));
  for (const item of items) {
    const element = old.get(item.number) || make(item);
    old.delete(item.number);
    element.dataset.number = item.number;
    update(element, item);
    if (!element.isConnected) list.append(element);
  }
  for (const element of old.values()) element.remove();
}

const WORDS = { waiting: "waiting", done: "done", cancelled: "cancelled" };

function drawQueue() {
  keyed($("#queue"), state.scenes, scene => {
    const element = $("#scene").content.firstElementChild.cloneNode(true);
    $(".card", element).onclick = () => show(scene.number);
    $(".thumb", element).src = `shots/${scene.shots[Math.floor(scene.shots.length / 2)].number}`;
    $(".thumb", element).onerror = event => event.target.removeAttribute("src");  // of a damaged shot
    $(".name", element).textContent = $(".name", element).title = scene.name;
    $("progress", element).setAttribute("aria-label", scene.name);
    return element;
  }, (element, scene) => {
    element.className = scene.state;
    $(".card", element).setAttribute("aria-current", scene.number === shown);
    const shots = `${scene.shots.length} ${scene.shots.length === 1 ? "file" : "shots"}`;
    $(".says", element).textContent = scene.state === "failed" ? `failed: ${scene.says}` : `${shots}, ${WORDS[scene.state] || scene.says}`;
    $("progress", element).value = scene.fraction;
    if (scene.state === "done" && element.dataset.revision !== String(scene.revision)) {
      element.dataset.revision = scene.revision;
      $(".thumb", element).src = `scenes/${scene.number}/fused?small&revision=${scene.revision}`;
    }
  });
  keyed($("#spare"), state.spare, shot => {
    const element = document.createElement("li");
    element.innerHTML = '<label><img class="thumb" alt=""><input type="checkbox" checked> <span></span></label>';
    $("img", element).onerror = event => event.target.removeAttribute("src");
    $("img", element).src = `shots/${shot.number}`;
    $("span", element).textContent = shot.label;
    return element;
  }, () => {});
  $("#tray").hidden = !state.spare.length;
  const left = state.scenes.filter(busy), done = state.scenes.filter(scene => scene.state === "done").length;
  $("#total").value = state.scenes.reduce((sum, scene) => sum + (busy(scene) ? scene.fraction : 1), 0) / (state.scenes.length || 1);
  $("#total").hidden = !left.length;
  $("#count").textContent = `${done} of ${state.scenes.length} done`;
  $("[data-do=cancel-all]").hidden = left.length < 2;
  $("[data-do=cancel]").hidden = !current() || !busy(current());
  $("[data-do=apart]").hidden = !current() || busy(current()) || current().shots.length < 2;
  $("[data-do=remove]").hidden = !current();
  $("[data-do=clear]").hidden = state.scenes.length < 2;
  disable($("#zip"), !done);
}

function disable(link, off) {
  link.setAttribute("aria-disabled", off);
  off ? link.removeAttribute("href") : null;
}

function drawStage() {
  const scene = current(), note = $("#note"), done = scene?.state === "done";
  const text = !scene ? (sending ? "" : state.scenes.length ? "Choose a scene below" : "Choose below the shots that show one scene")
    : done ? scene.warnings.join("\n")
    : scene.state === "failed" ? scene.says : scene.state === "cancelled" ? "Cancelled" : `${WORDS[scene.state] || scene.says} …`;
  if (note.textContent !== text) note.textContent = text;
  note.className = scene?.state === "failed" ? "bad" : done ? "low" : "";
  viewer.setAttribute("aria-label", scene ? `Picture: ${scene.name}, ${done ? `fused, ${scene.size.join(" by ")} pixels` : text}` : "Picture");
  $("#tools").classList.toggle("off", !done);
  for (const control of all("#tools button, #tools input")) control.disabled = !done;
  if (!done) {
    Object.values(slots).flat().forEach(clear);
    $("#views").replaceChildren();
    viewer.classList.remove("comparing");
    $("#scale").textContent = "";
    return;
  }
  const views = Object.entries(scene.views);
  if (view.against !== null && !(view.against in scene.views)) view.against = null;
  if ($("#views").dataset.of !== `${scene.number} ${scene.revision}` || !$("#views").children.length) {
    $("#views").dataset.of = `${scene.number} ${scene.revision}`;
    const focus = $("#views").contains(document.activeElement);
    $("#views").replaceChildren(...[["", "nothing"], ...views].map(([index, label], key) => {
      const element = document.createElement("label");
      element.innerHTML = '<input type="radio" name="against"><span></span>';
      const input = $("input", element);
      $("span", element).textContent = last(label);
      input.setAttribute("aria-keyshortcuts", key);
      input.checked = (index === "" ? null : Number(index)) === view.against;
      input.onchange = () => compare(index === "" ? null : Number(index));
      return element;
    }));
    if (focus) $("#views input:checked").focus();
  }
  all("#views input").forEach((input, key) => input.checked = (key ? Number(views[key - 1][0]) : null) === view.against);
  viewer.classList.toggle("comparing", view.against !== null);
  for (const [name, which] of sides(scene))
    load(slots[name][0], `scenes/${scene.number}/${which}?revision=${scene.revision}`);
  $("#tag-before").textContent = scene.views[view.against] || "";
  $("#tag-after").textContent = "fused";
  place();
}

function drawForms() {
  const scene = current(), form = $("#options").elements, done = scene?.state === "done";
  form.handheld.checked = form.align.checked && form.deghost.checked;
  form.handheld.indeterminate = form.align.checked !== form.deghost.checked;
  form.reference.disabled = !form.deghost.checked;
  $("#reference").hidden = !form.deghost.checked || !scene;
  form.method.disabled = !form.align.checked;
  form.reference.options[0].text = `best exposed${scene?.reference && scene.options.reference === null ? `: ${last(scene.reference)}` : ""}`;
  const changed = scene && JSON.stringify(options()) !== JSON.stringify(ordered(scene.options));
  $("#again").hidden = !(changed || scene?.state === "failed" || scene?.state === "cancelled");
  $("[data-do=again-all]").hidden = state.scenes.length < 2;
  $("[data-do=look-all]").hidden = state.scenes.length < 2;
  for (const control of $("#look").elements) control.disabled = !done;
  for (const input of all("#look input")) $("output", input.parentElement).textContent = input.value > 0 ? `+${input.value}` : input.value;
  const save = $("#save").elements, lossless = about?.formats.find(format => format.suffix === save.suffix.value)?.lossless;
  $("#quality").hidden = lossless;
  $("#quality output").textContent = save.quality.value;
  const query = new URLSearchParams({ suffix: save.suffix.value, quality: save.quality.value });
  disable($("#download"), !done);
  if (done) $("#download").href = `scenes/${scene.number}/picture?${query}`;
  if (state.scenes.some(one => one.state === "done")) $("#zip").href = `pictures?${query}`;
}

// What a person does

const chosen = () => all("#spare li").filter(element => $("input", element).checked).map(element => Number(element.dataset.number));
const DO = {
  files: () => $("#files").click(),
  folder: () => $("#folder").click(),
  stop: () => sending?.abort(),
  fit: () => { view.fitted = true; place(); },
  true: () => zoom(1, undefined, undefined, 1 / dots()),
  in: () => zoom(1.5),
  out: () => zoom(1 / 1.5),
  cancel: () => act(`scenes/${shown}/cancel`),
  apart: () => act(`scenes/${shown}/apart`),
  remove: () => act(`scenes/${shown}/remove`),
  "cancel-all": async () => { for (const scene of state.scenes.filter(busy)) await act(`scenes/${scene.number}/cancel`); },
  clear: () => confirm("Remove all scenes, their shots and pictures from this page? Your own files stay.") && act("clear"),
  together: async () => { const number = await act("scenes", { shots: chosen(), ...options() }); if (number) show(number); },
  forget: () => act("forget", { shots: chosen() }),
  "again-all": async () => { const wanted = { ...options(), reference: null }; for (const scene of state.scenes) await act(`scenes/${scene.number}/fuse`, wanted); },
  "look-all": async () => { const wanted = look(); for (const scene of state.scenes) await act(`scenes/${scene.number}/look`, wanted); },
};
document.addEventListener("click", event => DO[event.target.closest("[data-do]")?.dataset.do]?.());

for (const id of ["files", "folder"]) $(`#${id}`).onchange = event => {
  bring([...event.target.files].map(file => ({ name: file.webkitRelativePath || file.name, file })));
  event.target.value = "";
};
addEventListener("dragover", event => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", async event => {
  event.preventDefault();
  document.body.classList.remove("over");
  try { bring(await entries(event.dataTransfer.items)); } catch (error) { complain(`The files cannot be read: ${error.message}`); }
});

$("#options").onchange = ({ target }) => {
  const form = $("#options").elements;
  if (target === form.handheld) form.align.checked = form.deghost.checked = target.checked;
  drawForms();
};
$("#options").onsubmit = event => { event.preventDefault(); act(`scenes/${shown}/fuse`, options()); };
$("#look").oninput = change;
$("#look").onreset = () => setTimeout(change);
$("#look").onsubmit = $("#save").onsubmit = event => event.preventDefault();
$("#save").oninput = drawForms;
$("#split").oninput = event => { view.split = Number(event.target.value); place(); };

const fingers = new Map();
viewer.addEventListener("pointerdown", event => {
  if (event.target.id === "split") return;
  viewer.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
});
viewer.addEventListener("pointermove", event => {
  if (!fingers.has(event.pointerId)) return;
  const box = viewer.getBoundingClientRect(), now = [event.clientX - box.left, event.clientY - box.top];
  const before = fingers.get(event.pointerId);
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  fingers.set(event.pointerId, now);
  if (other) {
    const span = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    zoom(span(now) / Math.max(span(before), 1), other[0], other[1]);
  } else if (!view.fitted) {
    view.x += now[0] - before[0];
    view.y += now[1] - before[1];
    place();
  }
});
for (const name of ["pointerup", "pointercancel"]) viewer.addEventListener(name, event => fingers.delete(event.pointerId));
viewer.addEventListener("wheel", event => {
  event.preventDefault();
  const box = viewer.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
viewer.addEventListener("dblclick", event => {
  const box = viewer.getBoundingClientRect();
  view.fitted ? zoom(1, event.clientX - box.left, event.clientY - box.top, 1 / dots()) : DO.fit();
});
new ResizeObserver(place).observe(viewer);

const MOVES = { ArrowLeft: [80, 0], ArrowRight: [-80, 0], ArrowUp: [0, 80], ArrowDown: [0, -80] };
addEventListener("keydown", event => {
  const scene = current(), key = event.key;
  if (scene?.state !== "done" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const views = Object.keys(scene.views).map(Number);
  if (/^[0-9]$/.test(key)) { if (key === "0" || views[key - 1] !== undefined) compare(key === "0" ? null : views[key - 1]); }
  else if (key.toLowerCase() === "x" && view.against !== null) { view.split = view.split > 50 ? 0 : 100; $("#split").value = view.split; place(); }
  else if (key.toLowerCase() === "f") DO.fit();
  else if (key.toLowerCase() === "z") DO.true();
  else if (key === "+" || key === "=") DO.in();
  else if (key === "-") DO.out();
  else if (MOVES[key] && event.target === viewer) {
    view.x += MOVES[key][0];
    view.y += MOVES[key][1];
    place();
    event.preventDefault();
  }
});
addEventListener("beforeunload", event => { if (sending) event.preventDefault(); });

(async () => {
  about = await ask("about").catch(error => complain(error.message));
  if (!about) return;
  $("#files").accept = [...about.suffixes, "image/*"].join();
  for (const name of about.weights) $("#options").elements.weights.append(new Option(name, name));
  for (const { suffix, label } of about.formats) $("#save").elements.suffix.append(new Option(label, suffix));
  $("#save").elements.quality.value = about.quality;
  await refresh();
})();
