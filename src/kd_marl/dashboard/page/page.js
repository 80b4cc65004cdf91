"use strict";
// The page asks the server again every two seconds, with the version that it has: what is unchanged is not sent again.
// Whatever comes from a run is put in as text, never as markup.

const POLL_MS = 2000;
const MOST_RUNS = 60;
const AXES = ["stage", "method", "task", "limits"];
const STATES = ["running", "finished", "interrupted", "broken"];
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b5478f", "#b07800", "#2f8fc4", "#882255", "#6b6b00", "#2a8478", "#7a3fa0"];
const DARK = ["#6cb8e6", "#ff9e4a", "#4fd1a5", "#f0a3d0", "#ffd166", "#8ab4ff", "#e88aa8", "#c9cc66", "#7fd8cc", "#d59ae0"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const TITLES = {
  test_return_mean: "Return in tests", return_mean: "Return in training", test_battle_won_mean: "Win rate in tests",
  battle_won_mean: "Win rate in training", agreement: "Agreement with the teacher", loss: "Loss", entropy: "Entropy",
  kl: "KL to the teacher", retention: "Retention",
};
// Read against 0 and 1; retention may lie outside.
const SHARES = /battle_won|^(final_)?agreement$|^retention(_normalised)?$/;
const USUAL = ["test_battle_won_mean", "test_return_mean", "agreement", "return_mean", "loss"];
// As docs/concepts/limits.md names them.
const BLOCKS = {
  E: "enemies", A: "allies", O: "itself", V: "own velocity", P: "own position", L: "landmarks", "A(P)": "other agents",
  "D(A-A)": "distances", M: "messages", G: "goal",
};
const COLUMNS = [
  { key: "state", title: "State", cell: (row) => [stateMark(row.state, row.note)] },
  { key: "method", title: "Method", name: true, cell: openButton },
  { key: "task", title: "Task", name: true, cell: (row) => [row.task], hint: (row) => row.env },
  { key: "limits", title: "Limits", cell: (row) => [row.limits] },
  { key: "seed", title: "Seed", number: true, cell: (row) => [row.seed === null ? "–" : String(row.seed)] },
  { key: "steps", title: "Progress", wide: true, cell: progress },
  { key: "return_mean", title: "Return", number: true, cell: (row) => [score(row.return_mean)], hint: kind },
  { key: "win_rate", title: "Win rate", number: true, cell: (row) => [percent(row.win_rate)], hint: kind },
  { key: "retention", title: "Retention", number: true, cell: (row) => [percent(row.retention)] },
  { key: "started", title: "Started", wide: true, cell: (row) => [clock(row.started)] },
  { key: "seconds", title: "Took", number: true, wide: true, cell: (row) => [span(row.seconds)] },
];
// What a phone shows before it is scrolled.
const FIRST = ["state", "method", "return_mean", "retention"];

const $ = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 700px)");
const columns = () => !narrow.matches ? COLUMNS : [...COLUMNS].sort((a, b) => FIRST.includes(b.key) - FIRST.includes(a.key));

// ---- what the user has chosen: kept in the address, so that it can be sent to somebody ----

const chosen = { text: "", sort: "started", order: "down", offset: 0, mean: true, metrics: [], runs: new Set(), open: "" };
for (const axis of [...AXES, "state"]) chosen[axis] = "";
let begun = false;

function readAddress() {
  const hash = new URLSearchParams(location.hash.slice(1));
  for (const name of ["text", "sort", "order", "open", "state", ...AXES]) chosen[name] = hash.get(name) ?? chosen[name];
  chosen.mean = hash.get("mean") !== "0";
  chosen.metrics = hash.getAll("metric");
  chosen.runs = new Set(hash.getAll("run").slice(0, MOST_RUNS));
  begun = hash.has("run");
}

function writeAddress() {
  const hash = new URLSearchParams();
  for (const name of ["text", "state", ...AXES, "open"]) if (chosen[name]) hash.set(name, chosen[name]);
  if (chosen.sort !== "started" || chosen.order !== "down") { hash.set("sort", chosen.sort); hash.set("order", chosen.order); }
  if (!chosen.mean) hash.set("mean", "0");
  chosen.metrics.forEach((metric) => hash.append("metric", metric));
  chosen.runs.forEach((run) => hash.append("run", run));
  history.replaceState(null, "", "#" + hash);
}

// ---- small things ----

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (name in element && typeof value !== "string") element[name] = value;
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const short = (value) => (value === null ? "–" : Math.abs(value) < 10000 ? Math.round(value).toLocaleString("en") : compact.format(value).toLowerCase().replace("m", " M").replace("k", " k"));
const score = (value) => (value === null ? "–" : Math.abs(value) >= 10000 ? short(value) : value.toFixed(2));
const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);

function span(seconds) {
  if (seconds === null) return "–";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${String(minutes % 60).padStart(2, "0")} min` : `${Math.round(hours / 24)} days`;
}

function clock(seconds) {
  if (seconds === null) return "–";
  const date = new Date(1000 * seconds);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

const stateMark = (state, note = "") => make("span", { class: "state", "data-state": state, title: note }, state);

// ---- asking the server ----

const answers = {};

// Returns null where nothing is new since the last answer to the same question, or where a newer question was asked.
async function ask(slot, url) {
  const last = answers[slot];
  const mine = (answers[slot] = { url, etag: last?.url === url ? last.etag : "", number: (last?.number ?? 0) + 1 });
  const answer = await fetch(url, { headers: mine.etag ? { "If-None-Match": mine.etag } : {}, cache: "no-store" });
  if (answers[slot] !== mine || answer.status === 304) return null;
  if (!answer.ok && answer.status !== 404) throw new Error(`the server answered ${answer.status}`);
  const data = await answer.json();
  if (answers[slot] !== mine) return null;
  mine.etag = answer.headers.get("ETag") ?? "";
  return data;
}

function live(state, text) {
  $("live").dataset.state = state;
  if ($("live").textContent !== text) $("live").textContent = text;
}

async function refresh() {
  try {
    await Promise.all([loadRuns(), loadCurves(), loadRun()]);
    live("live", "live");
  } catch (error) {
    live("gone", error instanceof TypeError ? "the server has ended" : error.message);
  }
}

async function poll() {
  if (!document.hidden) await refresh();
  setTimeout(poll, POLL_MS);
}

function changed() {
  writeAddress();
  refresh();
}

// ---- the table ----

async function loadRuns() {
  const query = new URLSearchParams({ sort: chosen.sort, order: chosen.order, offset: chosen.offset });
  for (const name of ["text", "state", ...AXES]) if (chosen[name]) query.set(name, chosen[name]);
  const answer = await ask("runs", `/api/runs?${query}`);
  if (answer === null) return;
  if (answer.offset && answer.offset >= answer.matching) {
    chosen.offset = 0;
    return loadRuns();
  }
  $("title").textContent = answer.title;
  document.title = `kd-marl runs: ${answer.title.split("/").pop()}`;
  $("trouble").hidden = !answer.trouble;
  $("trouble").textContent = answer.trouble;
  showCount(answer);
  showFilters(answer.counts);
  showRows(answer);
  showSuites(answer.suites);
  if (!begun && answer.rows.length && answer.loading === null) chooseFirst(answer.rows);
}

// A first visit shows something: the newest run that has a curve, with its seeds.
function chooseFirst(rows) {
  begun = true;
  const first = rows.find((row) => row.stage !== "buffer" && row.state !== "broken") ?? rows[0];
  const alike = rows.filter((row) => ["method", "task", "limits"].every((name) => row[name] === first[name]));
  alike.slice(0, 10).forEach((row) => chosen.runs.add(row.key));
  showSelection();
  changed();
}

function showCount(answer) {
  const runs = (count) => `${count.toLocaleString("en")} run${count === 1 ? "" : "s"}`;
  const counted = answer.matching === answer.total ? runs(answer.total) : `${answer.matching.toLocaleString("en")} of ${runs(answer.total)}`;
  $("count").textContent = answer.loading === null ? counted : `reading … ${runs(answer.loading)} so far`;
  const last = answer.offset + answer.rows.length;
  $("pages").hidden = answer.matching <= answer.rows.length;
  $("range").textContent = `${answer.offset + 1} to ${last} of ${answer.matching.toLocaleString("en")}`;
  $("previous").disabled = answer.offset === 0;
  $("next").disabled = last >= answer.matching;
  $("empty").hidden = answer.rows.length > 0 || answer.loading !== null;
  $("empty").replaceChildren(...(answer.total ? ["No run matches. Take a filter away, or press Reset."] : [
    "No run here yet. Start one, and it appears by itself: ",
    make("code", {}, "python src/main.py --config=kd_student --env-config=mpe with env_args.key=pz-mpe-simple-spread-v3 limits=lh"),
  ]));
}

function showFilters(counts) {
  for (const axis of AXES) {
    const names = Object.keys(counts[axis]);
    if (chosen[axis] && !names.includes(chosen[axis])) names.unshift(chosen[axis]);
    const options = names.map((name) => new Option(`${name} (${counts[axis][name] ?? 0})`, name));
    const select = $(axis);
    if (document.activeElement === select) continue;
    select.replaceChildren(new Option("all", ""), ...options);
    select.value = chosen[axis];
  }
  keepFocus($("states"), () => $("states").replaceChildren(...STATES.map((state) => make(
    "button",
    { type: "button", "data-focus": state, "aria-pressed": String(chosen.state === state), on: { click: () => {
      chosen.state = chosen.state === state ? "" : state;
      chosen.offset = 0;
      changed();
    } } },
    `${(counts.state[state] ?? 0).toLocaleString("en")} ${state}`,
  ))));
}

function keepFocus(parent, draw) {
  const name = parent.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  draw();
  if (name !== undefined) [...parent.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === name)?.focus();
}

function showHead() {
  const cells = columns().map((column) => make(
    "th",
    {
      scope: "col",
      class: classes({ ...column, name: false }),
      "aria-sort": chosen.sort !== column.key ? "none" : chosen.order === "up" ? "ascending" : "descending",
    },
    make("button", { type: "button", "data-focus": column.key, on: { click: () => sortBy(column) } }, column.title),
  ));
  const all = make("input", { type: "checkbox", id: "all", "aria-label": "Select all runs of this page", on: { change: (event) => {
    for (const box of document.querySelectorAll("#runs tbody input")) select(box.value, event.target.checked);
    changed();
  } } });
  keepFocus($("runs"), () => document.querySelector("#runs thead tr").replaceChildren(make("th", { scope: "col" }, all), ...cells));
}

function sortBy(column) {
  if (chosen.sort === column.key) chosen.order = chosen.order === "up" ? "down" : "up";
  else Object.assign(chosen, { sort: column.key, order: ["method", "task", "limits", "state", "seed"].includes(column.key) ? "up" : "down" });
  chosen.offset = 0;
  showHead();
  changed();
}

let listed = { rows: [] };

function showRows(answer) {
  listed = answer;
  keepFocus($("runs"), () => document.querySelector("#runs tbody").replaceChildren(...answer.rows.map(tableRow)));
  showSelection();
}

function tableRow(row) {
  const box = make("input", { type: "checkbox", value: row.key, "data-focus": `box ${row.key}`, "aria-label": `Select ${row.key}`, on: { change: () => {
    select(row.key, box.checked);
    changed();
  } } });
  return make("tr", { "data-key": row.key }, make("td", {}, box), ...columns().map((column) => make(
    "td",
    { class: classes(column), title: column.hint?.(row) ?? null },
    ...column.cell(row),
  )));
}

const classes = (column) => ["number", "wide", "name"].filter((kind) => column[kind]).join(" ");
// Where a score is from.
function kind(row) {
  return row.stage === "buffer" ? "mean of the buffer's episodes" : row.final ? "final evaluation" : "last logged";
}

function openButton(row) {
  return [make("button", { type: "button", title: row.key, "data-focus": row.key, on: { click: () => openRun(row.key) } }, row.method || row.key)];
}

// How far a run is: steps of t_max, or of a buffer its episodes; what no file tells is left out.
function reached(row) {
  if (row.stage === "buffer") return [row.episodes, row.buffer_episodes];
  // A finished run has played t_max steps or more: its last entry in the log may be an earlier one.
  if (row.state === "finished" && !(row.steps >= row.t_max)) return [null, row.t_max];
  return [row.steps ?? 0, row.t_max];
}

function progress(row) {
  const [now, all] = reached(row);
  const done = row.state === "finished";
  const share = done ? 1 : now && all ? Math.min(1, now / all) : 0;
  return [make("progress", { max: 1, value: share, class: done ? "done" : "", "aria-label": "Progress" }), make("span", { class: "faint" }, howFar(row))];
}

function howFar(row) {
  const [now, all] = reached(row);
  if (now === null) return row.stage === "buffer" ? "" : short(all);
  return `${short(now)}${all === null ? "" : ` of ${short(all)}`}${row.stage === "buffer" ? " episodes" : ""}`;
}

// ---- choosing runs ----

function select(key, yes) {
  if (!yes) chosen.runs.delete(key);
  else if (chosen.runs.size < MOST_RUNS) chosen.runs.add(key);
  begun = true;
  showSelection();
}

function showSelection() {
  const boxes = [...document.querySelectorAll("#runs tbody input")];
  for (const box of boxes) {
    box.checked = chosen.runs.has(box.value);
    box.closest("tr").setAttribute("aria-selected", String(box.checked));
  }
  $("all").checked = boxes.length > 0 && boxes.every((box) => box.checked);
  $("clear").hidden = $("metric-menu").hidden = chosen.runs.size === 0;
  $("invitation").hidden = chosen.runs.size > 0;
}

// ---- curves ----

async function loadCurves() {
  if (chosen.runs.size === 0) {
    answers.curves = undefined;
    if (drawn) showCurves({ names: {}, groups: [], metrics: [], curves: {} });
    return;
  }
  const query = new URLSearchParams({ mean: chosen.mean ? "1" : "0" });
  chosen.runs.forEach((run) => query.append("run", run));
  $("waiting").hidden = drawn !== null;
  (chosen.metrics.length ? chosen.metrics : USUAL).forEach((metric) => query.append("metric", metric));
  const answer = await ask("curves", `/api/curves?${query}`);
  if (answer === null) return;
  await plotly();
  showCurves(answer);
}

// Plotly is large: the table does not wait for it.
let arriving = null;

function plotly() {
  arriving ??= new Promise((arrived, failed) => {
    document.head.append(make("script", { src: "/plotly.js", on: { load: arrived, error: () => { arriving = null; failed(new TypeError("no Plotly")); } } }));
  });
  return arriving;
}

let drawn = null;
const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => { if (target.data) Plotly.Plots.resize(target); }));

function showCurves(answer) {
  drawn = answer;
  $("waiting").hidden = true;
  const known = new Set(answer.metrics);
  const metrics = chosen.metrics.length ? chosen.metrics : USUAL.filter((metric) => known.has(metric)).slice(0, 2);
  $("by-run").setAttribute("aria-pressed", String(!chosen.mean));
  $("by-seed").setAttribute("aria-pressed", String(chosen.mean));
  showMetrics(answer.metrics, metrics);
  const looks = lineLooks(answer);
  const figures = new Map([...$("charts").children].map((figure) => [figure.dataset.metric, figure]));
  for (const [metric, figure] of figures) if (!metrics.includes(metric)) { sizes.unobserve(figure.lastChild); Plotly.purge(figure.lastChild); figure.remove(); }
  for (const metric of metrics) {
    if (figures.has(metric)) continue;
    const title = TITLES[metric];
    const caption = make("figcaption", {}, title ?? metric, title ? make("code", {}, metric) : null);
    figures.set(metric, make("figure", { "data-metric": metric }, caption, make("div", { class: "plot" })));
    $("charts").append(figures.get(metric));
    sizes.observe(figures.get(metric).lastChild);
  }
  // All have their place before the first is drawn: its width depends on the others.
  for (const metric of metrics) drawChart(figures.get(metric).lastChild, metric, answer.curves[metric] ?? [], looks);
  showLegend(answer, looks, metrics);
  $("note").hidden = !chosen.mean || chosen.runs.size === 0;
}

// A line is known by its first run; it keeps its colour in all charts.
function lineLooks(answer) {
  const palette = dark.matches ? DARK : LIGHT;
  const lines = chosen.mean ? answer.groups : answer.groups.flat().map((key) => [key]);
  return new Map(lines.map((keys, at) => [keys[0], {
    keys,
    colour: palette[at % palette.length],
    dash: DASHES[Math.floor(at / palette.length) % DASHES.length],
    name: lineName(answer, keys),
  }]));
}

function lineName(answer, keys) {
  const name = answer.names[keys[0]] ?? keys[0];
  return chosen.mean ? `${name} (${keys.length} run${keys.length === 1 ? "" : "s"})` : `${name}, ${keys[0]}`;
}

const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function drawChart(plot, metric, lines, looks) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const traces = [];
  for (const line of lines) {
    const look = looks.get(line.keys[0]);
    if (!look) continue;
    if (line.low?.some((value) => value !== null)) {
      traces.push({
        x: [...line.steps, ...line.steps.toReversed()], y: [...line.high, ...line.low.toReversed()], fill: "toself",
        fillcolor: look.colour + Math.round(255 * colour("--band")).toString(16), line: { width: 0 }, mode: "lines",
        hoverinfo: "skip", showlegend: false, name: "band",
      });
    }
    traces.push({
      x: line.steps, y: line.values, mode: line.steps.length < 40 ? "lines+markers" : "lines", name: plain(look.name),
      line: { color: look.colour, width: 2, dash: look.dash }, marker: { size: 5 }, showlegend: false,
      hovertemplate: "%{y:.4~g} at %{x:,} steps<extra>%{fullData.name}</extra>", meta: { keys: look.keys },
    });
  }
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, tickfont: { size: 11 }, automargin: true };
  Plotly.react(plot, traces, {
    margin: { l: 48, r: 12, t: 8, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), family: "system-ui, sans-serif" }, uirevision: metric, hovermode: "closest",
    xaxis: { ...axis, title: { text: "environment steps", font: { size: 11, color: colour("--faint") } }, rangemode: "tozero" },
    yaxis: { ...axis, ...(SHARES.test(metric) ? { tickformat: ".1~%", range: around(lines) } : {}) },
    hoverlabel: { namelength: 60, align: "left" },
    annotations: traces.length ? [] : [{ text: "none of the selected runs has logged this yet", showarrow: false, font: { color: colour("--faint") } }],
  }, { displayModeBar: false, displaylogo: false, scrollZoom: false });
}

// 0 to 1, wider where a line leaves it.
function around(lines) {
  const values = lines.flatMap((line) => [line.values, line.low ?? [], line.high ?? []].flat()).filter((value) => value !== null);
  const [low, high] = values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [0, 1]);
  return [low - 0.02 * (high - low), high + 0.02 * (high - low)];
}

function showLegend(answer, looks, metrics) {
  const has = new Set(metrics.flatMap((metric) => (answer.curves[metric] ?? []).map((line) => line.keys[0])));
  const items = [...looks.values()].map((look) => {
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    mark.setAttribute("width", "22");
    mark.setAttribute("height", "8");
    const stroke = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const dash = { solid: "", dash: "6 3", dot: "2 3", dashdot: "6 3 2 3" }[look.dash];
    for (const [name, value] of Object.entries({ x1: 0, x2: 22, y1: 4, y2: 4, stroke: look.colour, "stroke-width": 3, "stroke-dasharray": dash }))
      stroke.setAttribute(name, value);
    mark.append(stroke);
    const drop = make("button", { type: "button", "data-focus": look.keys[0], "aria-label": `Remove ${look.name}`, on: { click: () => {
      look.keys.forEach((key) => select(key, false));
      changed();
    } } }, "×");
    return make("li", {}, mark, make("span", {}, look.name, has.has(look.keys[0]) ? null : make("span", { class: "faint" }, " (nothing logged yet)")), drop);
  });
  keepFocus($("legend"), () => $("legend").replaceChildren(...items));
}

function showMetrics(all, shown) {
  const names = [...new Set([...shown, ...all])].sort((a, b) => shown.includes(b) - shown.includes(a) || a.localeCompare(b));
  keepFocus($("metrics"), () => $("metrics").replaceChildren(...names.map((metric) => {
    const box = make("input", { type: "checkbox", "data-focus": metric, checked: shown.includes(metric), on: { change: () => {
      chosen.metrics = box.checked ? [...shown, metric].slice(-12) : shown.filter((name) => name !== metric);
      changed();
    } } });
    return make("label", {}, box, ` ${metric}`);
  })));
}

// ---- one run ----

function openRun(key) {
  chosen.open = key;
  answers.run = undefined;
  $("run-title").textContent = key;
  $("run-body").replaceChildren(make("p", { class: "faint" }, "reading …"));
  if (!$("run").open) $("run").showModal();
  changed();
}

async function loadRun() {
  if (!chosen.open) return;
  const answer = await ask("run", `/api/run?${new URLSearchParams({ key: chosen.open })}`);
  if (answer !== null) showRun(answer);
}

function showRun(run) {
  if (!$("run").open) $("run").showModal();
  if (run.error) {
    $("run-title").textContent = chosen.open;
    $("run-body").replaceChildren(make("p", {}, run.error));
    chosen.open = "";
    return;
  }
  const row = run.row;
  $("run-title").textContent = [row.method || row.key, row.task, row.limits && `limits ${row.limits}`, row.seed !== null && `seed ${row.seed}`].filter(Boolean).join(", ");
  const facts = [
    ["started", clock(run.times.start)],
    [row.state === "running" ? "running for" : "took", span(row.seconds)],
    [row.stage === "buffer" ? "holds" : "steps", howFar(row) || "–"],
    ...run.machine,
    ["place", run.place],
  ];
  const open = new Set([...$("run-body").querySelectorAll("details[open]")].map((one) => one.dataset.part));
  const top = $("run").scrollTop;
  keepFocus($("run-body"), () => $("run-body").replaceChildren(
    make("p", {}, stateMark(row.state), row.note ? ` – ${row.note}` : ""),
    ...run.faults.filter((fault) => fault !== row.note).map((fault) => make("p", { class: "faint" }, fault)),
    make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    ...part("Command that repeats it", run.command ? copyable(run.command) : make("p", { class: "faint" }, "It was not recorded.")),
    ...part("Result", run.result ? resultTable(run.result) : make("p", { class: "faint" }, "A run has a result once it has ended.")),
    ...part("What each agent sees", sightTable(run)),
    ...part("Output", run.output ? make("pre", { id: "output", tabindex: "0" }, run.output) : make("p", { class: "faint" }, "Nothing yet.")),
    make("details", { "data-part": "settings", open: open.has("settings") },
      make("summary", { "data-focus": "settings" }, `Configuration (${run.settings.length} keys)`),
      make("table", {}, ...run.settings.map(([key, value]) => make("tr", {}, make("td", {}, make("code", {}, key)), make("td", {}, make("code", {}, value)))))),
  ));
  $("run").scrollTop = top;
  const output = $("output");
  if (output) output.scrollTop = output.scrollHeight;
}

const part = (title, content) => [make("h3", {}, title), content];

function copyable(text) {
  const button = make("button", { type: "button", "data-focus": "copy", on: { click: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl-C";
      getSelection().selectAllChildren(shown);
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } } }, "Copy");
  const shown = make("pre", { id: "command" }, text);
  return make("div", { class: "command" }, shown, button);
}

function resultTable(result) {
  return make("div", { class: "scroll" }, make("table", { id: "result" },
    make("thead", {}, make("tr", {}, ...result.columns.map((column, at) => make("th", { class: at ? "number" : "" }, column)))),
    make("tbody", {}, ...result.rows.map((cells) => make("tr", {}, ...cells.map((cell, at) => make("td", { class: at ? "number" : "" }, cell)))))));
}

function sightTable(run) {
  if (!run.sight) {
    if (run.masks) return make("div", {}, make("p", { class: "faint" }, "It is written at the end of the run. Until then this shows it:"), make("pre", {}, run.masks));
    return make("p", { class: "faint" }, run.row.limits === "fo" ? "Everything: limits are fo." : "It is not recorded for this run.");
  }
  const cell = (counts) => {
    if (!counts) return make("td", { class: "none" }, "");
    const [seen, all] = counts;
    const kind = seen === 0 ? "none" : seen >= all ? "all" : "part";
    return make("td", { class: kind }, kind === "all" ? "all" : kind === "none" ? "hidden" : `${seen} of ${all}`);
  };
  const { blocks, agents } = run.sight;
  return make("div", { class: "scroll" }, make("table", { class: "sight", id: "sight" },
    make("thead", {}, make("tr", {}, make("th", {}, "agent"), ...blocks.map((block) => make("th", {}, block, make("small", {}, BLOCKS[block] ?? ""))), make("th", {}, "features"))),
    make("tbody", {}, ...agents.map((agent) => make("tr", {}, make("td", {}, agent.agent), ...blocks.map((block) => cell(agent.blocks[block])),
      make("td", {}, agent.of === null ? agent.seen : `${agent.seen} of ${agent.of}`))))));
}

// ---- suites ----

function showSuites(suites) {
  const found = suites ?? [];
  $("suites").hidden = found.length === 0;
  const open = new Set([...$("suites").querySelectorAll("details[open]")].map((one) => one.dataset.part));
  keepFocus($("suites"), () => $("suites").replaceChildren(...found.map((suite) => {
    const all = Object.values(suite.counts).reduce((sum, count) => sum + count, 0);
    const done = suite.counts.finished ?? 0;
    const others = Object.entries(suite.counts).filter(([state]) => state !== "finished");
    const left = suite.fault || (suite.seconds !== null ? `about ${span(suite.seconds)} to go, until ${clock(Date.now() / 1000 + suite.seconds)}` : "");
    return make("details", { class: "suite", "data-part": suite.file, open: open.has(suite.file) },
      make("summary", { "data-focus": suite.file }, make("strong", {}, `Suite ${suite.name}`),
        ...(suite.fault ? [] : [
          make("progress", { max: Math.max(1, all), value: done, class: done === all ? "done" : "", "aria-label": "Progress of the suite" }),
          `${done} of ${all} finished`,
        ]), ...others.map(([state, count]) => make("span", { class: "state", "data-state": state }, `${count} ${state}`)),
        make("span", { class: "faint" }, left)),
      suite.fault ? null : make("div", { class: "scroll" }, make("table", {},
        make("thead", {}, make("tr", {}, ...["task", "method", "limits", ...STATES, "missing"].map((name) => make("th", {}, name)))),
        make("tbody", {}, ...suite.rows.map((row) => make("tr", {}, ...[row.task, row.method, row.limits].map((name) => make("td", {}, name)),
          ...[...STATES, "missing"].map((state) => make("td", {}, String(row.counts[state] ?? "")))))))),
      suite.running.length ? make("p", { class: "faint" }, `running: ${suite.running.join(", ")}`) : null,
      suite.notes.length ? make("ul", {}, ...suite.notes.map((note) => make("li", {}, note))) : null);
  })));
}

// ---- beginning ----

readAddress();
showHead();
$("text").value = chosen.text;
let typing = 0;
$("text").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { chosen.text = $("text").value; chosen.offset = 0; changed(); }, 150);
});
for (const axis of AXES) {
  $(axis).append(new Option("all", ""));
  $(axis).addEventListener("change", () => { chosen[axis] = $(axis).value; chosen.offset = 0; $(axis).blur(); changed(); });
}
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => {
  for (const name of ["text", "state", ...AXES]) chosen[name] = "";
  chosen.offset = 0;
  changed();
});
$("previous").addEventListener("click", () => { chosen.offset = Math.max(0, chosen.offset - 100); changed(); });
$("next").addEventListener("click", () => { chosen.offset += 100; changed(); });
$("by-run").addEventListener("click", () => { chosen.mean = false; changed(); });
$("by-seed").addEventListener("click", () => { chosen.mean = true; changed(); });
$("clear").addEventListener("click", () => { chosen.runs.clear(); chosen.metrics = []; showSelection(); changed(); });
$("close").addEventListener("click", () => $("run").close());
$("run").addEventListener("close", () => { chosen.open = ""; writeAddress(); });
$("run").addEventListener("click", (event) => { if (event.target === $("run")) $("run").close(); });
document.addEventListener("click", (event) => { if (!$("metric-menu").contains(event.target)) $("metric-menu").open = false; });
dark.addEventListener("change", () => { if (drawn) showCurves(drawn); });
narrow.addEventListener("change", () => { showHead(); showRows(listed); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
poll();
