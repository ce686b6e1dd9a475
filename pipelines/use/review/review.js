"use strict";
// The page of `miwake review`: a list that holds only what is seen, one item large, decisions by key or button.
const ROW = 72, AHEAD = 12, PAGE = 100;
const $ = id => document.getElementById(id);
const make = (parent, name, text = "", values = {}) => {
    const node = document.createElement(name);
    node.textContent = text;
    for (const key in values) node.setAttribute(key, values[key]);
    return parent.appendChild(node);
};
const state = {overview: null, queue: "", label: "", open: false, total: 0, decided: 0, at: 0, pages: new Map(), version: "", cropping: false, pace: [], shown: 0, serial: 0};

async function ask(path, words) {
    const given = words === undefined ? {} : {method: "POST", body: JSON.stringify(words), headers: {"Content-Type": "application/json"}};
    let answer;
    try {
        answer = await fetch(path, given);
    } catch {
        say("The server has ended: run `miwake review` again. What you decided is written.");
        throw new Error("no server");
    }
    const found = await answer.json().catch(() => ({error: `status ${answer.status}`}));
    if (!answer.ok && answer.status !== 409) say(found.error);
    return {ok: answer.ok, status: answer.status, ...found};
}

let silence;
function say(text) {
    $("message").textContent = text;
    $("message").hidden = false;
    clearTimeout(silence);
    silence = setTimeout(() => { $("message").hidden = true; }, 6000);
}

// the list ---------------------------------------------------------------------------------------

async function load(page) {
    if (state.pages.has(page)) return state.pages.get(page);
    const asked = new URLSearchParams({queue: state.queue, label: state.label, open: state.open ? 1 : 0, start: page * PAGE, count: PAGE});
    const promise = ask(`/api/items?${asked}`).then(found => {
        state.total = found.total;
        return found.items;
    });
    state.pages.set(page, promise);
    return promise;
}

async function item(number) {
    return (await load(Math.floor(number / PAGE)))[number % PAGE];
}

let drawing = 0;
async function drawRows() {
    const mine = ++drawing, list = $("list");
    $("space").style.height = `${state.total * ROW}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 2);
    const last = Math.min(state.total, first + Math.ceil(list.clientHeight / ROW) + AHEAD);
    const items = await Promise.all(Array.from({length: last - first}, (_, i) => item(first + i)));
    if (mine !== drawing) return;
    const rows = document.createDocumentFragment();
    items.forEach((one, i) => {
        if (!one) return;
        const row = make(rows, "li", "", first + i === state.at ? {class: "now", "aria-current": "true"} : {});
        row.style.top = `${(first + i) * ROW}px`;
        if (one.image_id) make(row, "img", "", {src: `/small/${one.image_id}`, alt: "", loading: "lazy"});
        const text = make(row, "span", names(one));
        make(text, "small", told(one.decided) || one.path, one.decided ? {class: "decided"} : {});
        row.addEventListener("click", () => show(first + i));
    });
    $("rows").replaceChildren(rows);
}

const names = one => one.other_id && one.other_label !== one.label ? `${one.label} / ${one.other_label}` : one.suggested ? `${one.label} → ${one.suggested}` : one.label;

function told(decided) {
    if (!decided) return "";
    if (decided.startsWith("relabel:")) return `now ${decided.slice(8)}`;
    return {right: "label is right", drop: "dropped", crop: "cropped", different: "two pictures"}[decided] || decided;
}

// one item ---------------------------------------------------------------------------------------

async function show(number) {
    const serial = ++state.serial;
    if (state.total === 0) return finish("Nothing is left here.");
    state.at = Math.max(0, Math.min(number, state.total - 1));
    const one = await item(state.at);
    if (serial !== state.serial || !one) return;
    stopCropping();
    $("done").hidden = true;
    $("relabel").hidden = true;
    const pictures = $("pictures");
    pictures.replaceChildren();
    if (one.image_id) picture(pictures, one.image_id, one.label, one.path);
    if (one.other_id && one.other_id !== one.image_id) picture(pictures, one.other_id, one.other_label, one.other_path);
    if (!one.image_id) make(pictures, "p", one.path);
    $("name").textContent = names(one);
    $("state").textContent = told(one.decided);
    $("reasons").replaceChildren();
    for (const reason of one.reasons) make($("reasons"), "li", reason);
    if (one.subset) make($("reasons"), "li", `It is a ${one.subset} picture.`);
    $("warning").hidden = !(one.subset === "test" && one.queue !== "rejects");
    buttons(one);
    keepInSight();
    drawRows();
    progress();
    state.shown = performance.now();
    for (const next of [state.at + 1, state.at + 2]) {
        if (next < state.total) item(next).then(two => { if (two && two.image_id) new Image().src = `/large/${two.image_id}`; });
    }
    $("near").replaceChildren();
    $("near-title").hidden = true;
    if (!one.image_id) return;
    const near = await (await fetch(`/api/neighbours/${one.image_id}`)).json();
    if (serial !== state.serial) return;
    $("near-title").hidden = near.length === 0;
    for (const other of near) {
        const place = make($("near"), "li");
        make(place, "img", "", {src: `/small/${other.image_id}`, alt: other.label, loading: "lazy"});
        make(place, "span", other.label || "left out", other.label === one.label ? {} : {class: "other"});
    }
}

function picture(parent, id, label, path) {
    const figure = make(parent, "figure"), frame = make(figure, "div", "", {class: "frame"});
    make(frame, "img", "", {src: `/large/${id}`, alt: `${label}: ${path}`, draggable: "false"});
    make(figure, "figcaption", `${label} · ${path}`);
}

function keepInSight() {
    const list = $("list"), top = state.at * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
}

function choices(one) {
    const isPair = Boolean(one.other_id), found = [];
    if (!one.image_id) return [["n", "Next", () => show(state.at + 1)]];
    if (one.queue === "conflicts") {
        found.push(["1", `Both are ${one.label}`, () => decide("relabel", {label: one.label}), true]);
        found.push(["2", `Both are ${one.other_label}`, () => decide("relabel", {label: one.other_label}), true]);
    } else if (!isPair) {
        found.push(["r", `${one.label} is right`, () => decide("right"), true]);
        if (one.suggested) found.push(["s", `It is ${one.suggested}`, () => decide("relabel", {label: one.suggested}), true]);
    }
    if (isPair && one.other_id !== one.image_id) found.push(["f", "Two different pictures", () => decide("different"), !found.length]);
    found.push(["l", isPair ? "Another label for both …" : "Another label …", askLabel]);
    if (!isPair) found.push(["c", "Crop by dragging", startCropping]);
    found.push(["d", isPair ? "Drop the first and its copies" : "Drop it", () => decide("drop")]);
    if (one.decided) found.push(["x", "Take the decision back", () => decide("clear")]);
    found.push(["u", "Undo the last", undo], ["n", "Next", () => show(state.at + 1)], ["p", "Previous", () => show(state.at - 1)]);
    return found;
}

let keys = {};
function buttons(one) {
    keys = {};
    $("actions").replaceChildren();
    for (const [key, text, act, isMain] of choices(one)) {
        keys[key] = act;
        const button = make($("actions"), "button", "", {type: "button", "data-key": key, ...(isMain ? {class: "main"} : {})});
        make(button, "span", text);
        make(button, "kbd", key);
        button.addEventListener("click", act);
    }
}

// decisions --------------------------------------------------------------------------------------

async function decide(action, more = {}) {
    const number = state.at, one = await item(number);
    const found = await ask("/api/decide", {queue: one.queue, number: one.number, action, seen: one.decided, ...more});
    if (found.status === 409) {
        say(found.error);
        return refresh();
    }
    if (!found.ok) return;
    state.pace.push(performance.now() - state.shown);
    state.decided += (found.decided ? 1 : 0) - (one.decided ? 1 : 0);
    one.decided = found.decided;
    state.version = found.version;
    await counts();
    if (action === "clear" || action === "crop") return show(number);
    if (number + 1 < state.total) return show(number + 1);
    await show(number);
    finish(`That was the last. ${state.decided} of ${state.total} decided. Run \`miwake run\` to see what it does.`);
}

async function undo() {
    const found = await ask("/api/undo", {});
    if (!found.ok) return say(found.error);
    state.version = found.version;
    if (found.queue !== state.queue) {
        await choose(found.queue);
    }
    state.pages.clear();
    await counts();
    await load(0);
    say("Taken back.");
    for (let number = 0; !state.open && number < state.total; number++) {
        if ((await item(number)).number === found.number) return show(number);
    }
    show(state.at);
}

function askLabel() {
    $("relabel").hidden = false;
    $("new-label").value = "";
    $("new-label").focus();
}

$("relabel").addEventListener("submit", event => {
    event.preventDefault();
    const label = $("new-label").value.trim();
    if (!label) return;
    if (!state.overview.labels.includes(label) && !confirm(`No picture is ${label} yet. Make it a new class?`)) return;
    $("relabel").hidden = true;
    decide("relabel", {label});
});

// cropping ---------------------------------------------------------------------------------------

function startCropping() {
    state.cropping = true;
    $("stage").classList.add("cropping");
    say("Drag a rectangle over what counts. Esc leaves it.");
}

function stopCropping() {
    state.cropping = false;
    $("stage").classList.remove("cropping");
    document.querySelector(".box")?.remove();
}

$("pictures").addEventListener("pointerdown", event => {
    const image = event.target.closest(".frame")?.querySelector("img");
    if (!state.cropping || !image) return;
    event.preventDefault();
    const whole = image.getBoundingClientRect(), box = make(image.parentElement, "div", "", {class: "box"});
    // the picture may be narrower or lower than its element
    const zoom = Math.min(whole.width / image.naturalWidth, whole.height / image.naturalHeight);
    const width = zoom * image.naturalWidth, height = zoom * image.naturalHeight, x = (whole.width - width) / 2, y = (whole.height - height) / 2;
    const at = move => [(move.clientX - whole.left - x) / width, (move.clientY - whole.top - y) / height].map(v => Math.min(1, Math.max(0, v)));
    const from = at(event);
    let crop = null;
    const drag = move => {
        const to = at(move), [left, right] = [from[0], to[0]].sort((a, b) => a - b), [top, bottom] = [from[1], to[1]].sort((a, b) => a - b);
        crop = [left, top, right, bottom];
        Object.assign(box.style, {left: `${x + left * width}px`, top: `${y + top * height}px`, width: `${(right - left) * width}px`, height: `${(bottom - top) * height}px`});
    };
    const end = () => {
        removeEventListener("pointermove", drag);
        removeEventListener("pointerup", end);
        if (crop) decide("crop", {crop});
        else stopCropping();
    };
    addEventListener("pointermove", drag);
    addEventListener("pointerup", end);
});

// what stands above ------------------------------------------------------------------------------

function finish(text) {
    $("done").textContent = text;
    $("done").hidden = false;
    progress();
}

function progress() {
    const left = state.total - (state.open ? 0 : state.decided);
    const sorted = state.pace.slice(-30).sort((a, b) => a - b), median = sorted[Math.floor(sorted.length / 2)];
    const minutes = median ? Math.ceil(left * median / 60000) : 0;
    const time = sorted.length < 5 || left <= 0 ? "" : `, about ${minutes} ${minutes === 1 ? "minute" : "minutes"}`;
    $("progress").textContent = state.total ? `${state.decided} of ${state.total} decided${time}` : "";
}

async function counts() {
    state.overview = await ask("/api/overview");
    state.version = state.overview.version;
    document.title = `Review · ${state.overview.title}`;
    $("title").textContent = state.overview.title;
    const focused = document.activeElement?.dataset?.queue;
    $("queues").replaceChildren();
    for (const queue of state.overview.queues) {
        const button = make($("queues"), "button", `${queue.title} ${queue.total - queue.decided}`, {
            type: "button", "data-queue": queue.name, "aria-pressed": queue.name === state.queue, title: `${queue.decided} of ${queue.total} decided`});
        button.addEventListener("click", () => choose(queue.name));
        if (focused === queue.name) button.focus();
    }
    const own = state.overview.queues.find(queue => queue.name === state.queue);
    if (own && !state.label) state.decided = own.decided;
}

async function choose(queue, label = "") {
    Object.assign(state, {queue, label, at: 0, pace: []});
    history.replaceState(null, "", `#${queue}`);
    await counts();
    const own = state.overview.queues.find(one => one.name === queue);
    $("label").replaceChildren();
    make($("label"), "option", "all", {value: ""});
    for (const name in own?.labels || {}) make($("label"), "option", `${name} (${own.labels[name]})`, {value: name});
    $("label").value = label;
    await reload(0);
}

async function reload(at) {
    state.pages.clear();
    const first = await ask(`/api/items?${new URLSearchParams({queue: state.queue, label: state.label, open: state.open ? 1 : 0, start: 0, count: 0})}`);
    Object.assign(state, {total: first.total, decided: first.decided});
    $("list").scrollTop = 0;
    await show(at);
    drawRows();
}

async function refresh() {
    await counts();
    await reload(state.at);
}

$("label").addEventListener("change", () => { state.label = $("label").value; reload(0); });
$("open").addEventListener("change", () => { state.open = $("open").checked; reload(0); });
let waiting;
$("list").addEventListener("scroll", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(drawRows); });
addEventListener("resize", drawRows);
addEventListener("keydown", event => {
    if (event.key === "Escape") {
        stopCropping();
        $("relabel").hidden = true;
        document.activeElement?.blur();
        return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
    const key = {ArrowDown: "n", ArrowRight: "n", ArrowUp: "p", ArrowLeft: "p"}[event.key] || event.key;
    if (!keys[key]) return;
    event.preventDefault();
    keys[key]();
});
// another window, or an editor, may decide as well
setInterval(async () => {
    if (document.hidden) return;
    const found = await ask("/api/version");
    if (found.version !== state.version) refresh();
}, 3000);

(async () => {
    await counts();
    for (const name of state.overview.labels) make($("labels"), "option", "", {value: name});
    const names = state.overview.queues.map(queue => queue.name), wished = location.hash.slice(1);
    if (names.length) await choose(names.includes(wished) ? wished : names[0]);
    else finish("There is nothing to review: no suspects, duplicates, mistakes or rejects.");
})();
