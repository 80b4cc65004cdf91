"use strict";
(() => {
  const film = JSON.parse(document.getElementById("film").textContent);
  const $ = (id) => document.getElementById(id);
  const leading = film.leading;
  const stillness = matchMedia("(prefers-reduced-motion: reduce)");

  // ---- the data ---------------------------------------------------------------------------------------------------

  function unpack(packed) {
    if (!packed) return null;
    const text = atob(packed.data), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const kinds = { f4: Float32Array, i2: Int16Array, i2s: Int16Array, u1: Uint8Array, u2: Uint16Array };
    const flat = new kinds[packed.kind](bytes.buffer), shape = packed.shape, scale = packed.scale;
    const at = (...where) => {
      let place = 0;
      for (let axis = 0; axis < shape.length; axis++) place = place * shape[axis] + where[axis];
      if (packed.kind === "u2") return flat[place] / 65535;
      return scale ? flat[place] * scale[place % scale.length] : flat[place];
    };
    return { at, shape };
  }

  const ARRAYS = ["rewards", "actions", "deciding", "available", "visible", "chances", "teacher_chances",
    "teacher_actions", "values", "messages", "obs"];

  // An episode's arrays are unpacked when it is chosen.
  function takesOf(number) {
    return film.episodes[number].takes.map((take) => {
      const open = { ...take };
      for (const name of ARRAYS) open[name] = unpack(take[name]);
      open.returns = [0];
      for (let t = 0; t < take.steps; t++) open.returns.push(open.returns[t] + open.rewards.at(t));
      if (take.world) open.world = { ...take.world, moments: unpack(take.world.moments) };
      return open;
    });
  }

  const state = { episode: film.first, step: 0, agent: 0, playing: false, speed: 4, numbers: null };
  let takes = [], longest = 0, drawn = [];

  const differs = (take, t, agent) =>
    take.teacher_actions !== null && t < take.steps && take.deciding.at(t, agent) === 1 &&
    take.actions.at(t, agent) !== take.teacher_actions.at(t, agent);
  const actionName = (agent, action) => film.agents[agent].actions[action] || "action " + action;
  const whole = () => Math.min(Math.floor(state.step + 1e-9), longest);
  const alive = (take, t, agent) => {
    if (!take.world) return true;
    const place = take.world.shapes.findIndex((shape) => shape.agent === agent);
    return place < 0 || take.world.moments.at(Math.min(t, take.steps), place, 3) > 0;
  };
  const failedNow = (agent, feature, t) => {
    const since = film.failed && film.failed[agent][feature];
    return since !== null && since !== undefined && since >= 0 && t >= since;
  };
  const short = (value) => {
    if (value === null || !Number.isFinite(value)) return "no number";
    const size = Math.abs(value);
    if (size >= 10000 || (size > 0 && size < 0.005)) return value.toExponential(0);
    return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2).replace("-0.00", "0.00");
  };

  // ---- the agents' own programs -------------------------------------------------------------------------------------

  // Of each player and agent: what runs its C, once it is compiled.
  const programs = [];
  async function compile(text) {
    const { instance } = await WebAssembly.instantiate(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
    return instance.exports;
  }
  async function bringToLife() {
    for (const agents of film.live.programs) programs.push(agents && await Promise.all(agents.map(compile)));
  }
  // What an agent's program decides in the episode that is shown, step by step from its beginning.
  let decided = new Map();
  function decidesLive(k, agent) {
    if (!programs[k]) return null;
    const key = k + " " + agent;
    if (!decided.has(key)) {
      const program = programs[k][agent], take = takes[k], told = unpack(film.live.told[k][state.episode][agent]);
      const [inputs, actions] = [told.shape[1], take.available.shape[2]];
      const memory = program.memory.buffer;
      const features = new Float32Array(memory, program.at_features(), inputs);
      const available = new Uint8Array(memory, program.at_available(), actions);
      const logits = new Float32Array(memory, program.at_logits(), actions);
      const steps = [];
      program.begin();
      for (let t = 0; t < take.steps; t++) {
        for (let i = 0; i < inputs; i++) features[i] = told.at(t, i);
        for (let i = 0; i < actions; i++) available[i] = take.available.at(t, agent, i);
        steps.push({ action: program.decide(), logits: Array.from(logits) });
      }
      decided.set(key, steps);
    }
    return decided.get(key);
  }

  // ---- small pieces of the page -----------------------------------------------------------------------------------

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") node.className = value; else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  function draw(tag, attributes = {}, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

  const panels = film.panels.map((panel, k) => {
    const canvas = make("canvas", { "data-panel": k, role: "img" });
    const figures = make("div", { class: "figures" });
    const box = make("article", { class: "panel card", style: `--mine: var(--panel${k})` },
      make("h2", {}, panel.name), make("p", { class: "caption" }, panel.caption));
    if (film.episodes[0].takes[k].world) box.append(canvas);
    box.append(figures);
    $("panels").append(box);
    return { ...panel, canvas, figures };
  });

  // ---- the world, drawn to scale ----------------------------------------------------------------------------------

  const WAYS = { move_left: [-1, 0], move_right: [1, 0], move_down: [0, -1], move_up: [0, 1],
    west: [-1, 0], east: [1, 0], south: [0, -1], north: [0, 1] };

  // What all panels show of an episode: everything that anybody's shapes ever touch.
  function frameOf(takes) {
    let [left, bottom, right, top] = [Infinity, Infinity, -Infinity, -Infinity];
    const include = (x, y, r) => {
      left = Math.min(left, x - r); right = Math.max(right, x + r);
      bottom = Math.min(bottom, y - r); top = Math.max(top, y + r);
    };
    for (const take of takes) {
      const { shapes, moments, bounds } = take.world;
      // A battle uses a part of its map, a particle world all of its own.
      if (!shapes.some((shape) => shape.full_health)) {
        include(bounds[0], bounds[1], 0); include(bounds[2], bounds[3], 0);
      }
      for (let t = 0; t <= take.steps; t++)
        shapes.forEach((shape, k) => include(moments.at(t, k, 0), moments.at(t, k, 1), shape.radius));
    }
    const margin = 0.06 * Math.max(right - left, top - bottom);
    left -= margin; right += margin; bottom -= margin; top += margin;
    const squat = (right - left) * 0.45 - (top - bottom);
    if (squat > 0) { bottom -= squat / 2; top += squat / 2; }
    const slim = (top - bottom) - (right - left);
    if (slim > 0) { left -= slim / 2; right += slim / 2; }
    return { left, bottom, right, top };
  }
  let frame = null;
  // No picture is taller, in pixels, so that the controls stay in sight.
  const TALLEST = 440;

  // How much of a shape the chosen agent is shown: "all", "some", "none", "failed" (it would be shown it, but its sensors
  // have failed), "far" (out of its sight now) or "self".
  function sightOf(take, t, shape, place) {
    const agent = state.agent;
    if (agent < 0 || shape.agent === agent) return agent < 0 ? "all" : "self";
    const features = film.agents[agent].features;
    let told = 0, meant = 0, of = 0;
    features.forEach(([name, stem], k) => {
      if (!name || !(shape.features.includes(stem) || shape.features.includes(name))) return;
      of += 1;
      if (!take.visible.at(agent, k)) return;
      meant += 1;
      told += failedNow(agent, k, t) ? 0 : 1;
    });
    if (!of) return "all";
    if (!told) return meant ? "failed" : "none";
    const me = take.world.shapes.findIndex((other) => other.agent === agent);
    const reach = me < 0 ? null : take.world.shapes[me].sight;
    if (reach) {
      const m = take.world.moments;
      if (Math.hypot(m.at(t, me, 0) - m.at(t, place, 0), m.at(t, me, 1) - m.at(t, place, 1)) > reach) return "far";
    }
    return told < of ? "some" : "all";
  }

  function drawWorld(k) {
    const take = takes[k], canvas = panels[k].canvas, { shapes, moments, attacks, roads } = take.world;
    const across = frame.right - frame.left, up = frame.top - frame.bottom, ratio = window.devicePixelRatio || 1;
    canvas.style.maxWidth = `${Math.round(TALLEST * across / up)}px`;
    const wide = canvas.clientWidth || 560, scale = wide / across, high = Math.round(scale * up);
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio); canvas.height = Math.round(high * ratio);
      canvas.style.height = high + "px";
    }
    const ink = canvas.getContext("2d");
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.clearRect(0, 0, wide, high);
    const time = Math.min(state.step, take.steps), t = Math.floor(time + 1e-9), part = time - t;
    const next = Math.min(t + 1, take.steps);
    const px = (x) => (x - frame.left) * scale, py = (y) => (frame.top - y) * scale;
    const places = shapes.map((shape, n) => {
      const x = moments.at(t, n, 0) * (1 - part) + moments.at(next, n, 0) * part;
      const y = moments.at(t, n, 1) * (1 - part) + moments.at(next, n, 1) * part;
      return { name: shape.name, x, y, px: px(x), py: py(y), radius: shape.radius * scale,
        health: moments.at(t, n, 2), alive: moments.at(t, n, 3) > 0, sight: sightOf(take, t, shape, n) };
    });
    drawn[k] = { step: t, scale, frame, shapes: places };
    drawGrid(ink, wide, high, scale, px, py);
    if (roads.length) drawRoads(ink, take, t, scale, px, py);
    const of = (agent) => shapes.findIndex((shape) => shape.agent === agent);
    const me = state.agent < 0 ? -1 : of(state.agent);
    if (me >= 0 && places[me].alive) {
      if (shapes[me].sight) {
        circle(ink, places[me].px, places[me].py, shapes[me].sight * scale);
        ink.globalAlpha = 0.08; ink.fillStyle = colour("pick"); ink.fill();
        ink.globalAlpha = 0.9; ink.setLineDash([2, 5]); ink.strokeStyle = colour("pick"); ink.lineWidth = 1.5; ink.stroke();
        ink.setLineDash([]); ink.globalAlpha = 1;
      }
    }
    // Orders below, bodies above.
    if (t < take.steps) {
      film.agents.forEach((_, agent) => {
        const n = of(agent);
        if (n < 0 || !places[n].alive || !take.deciding.at(t, agent)) return;
        if (differs(take, t, agent)) intend(ink, shapes, places, n, agent, take.teacher_actions.at(t, agent), colour("differs"), true);
        intend(ink, shapes, places, n, agent, take.actions.at(t, agent), colour("ink"), false);
      });
      for (const [from, to] of attacks[t]) shot(ink, places[from], places[to], shapes[from], part);
    }
    shapes.forEach((shape, n) => body(ink, shape, places[n], n === me));
    if (t < take.steps) film.agents.forEach((_, agent) => {
      const n = of(agent);
      if (n >= 0 && places[n].alive && differs(take, t, agent)) mark(ink, places[n]);
    });
    canvas.setAttribute("aria-label", `${panels[k].name}, step ${t}: ` +
      places.map((p) => `${p.name} at ${p.x.toFixed(2)}, ${p.y.toFixed(2)}`).join("; "));
  }

  function drawGrid(ink, wide, high, scale, px, py) {
    const unit = [0.1, 0.25, 0.5, 1, 2, 5, 10, 25, 50, 100, 1000].find((size) => size * scale >= 40) || 10000;
    ink.strokeStyle = colour("line"); ink.lineWidth = 1; ink.globalAlpha = 0.55;
    ink.beginPath();
    for (let x = Math.ceil(frame.left / unit) * unit; x < frame.right; x += unit) { ink.moveTo(px(x), 0); ink.lineTo(px(x), high); }
    for (let y = Math.ceil(frame.bottom / unit) * unit; y < frame.top; y += unit) { ink.moveTo(0, py(y)); ink.lineTo(wide, py(y)); }
    ink.stroke();
    ink.globalAlpha = 1; ink.fillStyle = colour("soft"); ink.font = "11px system-ui, sans-serif"; ink.textAlign = "left";
    ink.fillText(`one square: ${unit}`, 6, high - 6);
  }

  // Lanes in the ink of what the chosen agent sees of them, the light at a lane's end, and vehicles: those that stand are filled.
  function drawRoads(ink, take, t, scale, px, py) {
    const { roads, lights, vehicles } = take.world, light = { r: "failed", y: "pick", g: "goal" };
    ink.lineCap = "butt";
    roads.forEach((road) => {
      const sight = sightOf(take, t, road, -1);
      ink.beginPath();
      road.points.forEach(([x, y], n) => n ? ink.lineTo(px(x), py(y)) : ink.moveTo(px(x), py(y)));
      ink.strokeStyle = colour(sight === "failed" ? "failed" : "line");
      ink.globalAlpha = sight === "none" ? 0.3 : 1;
      ink.lineWidth = Math.max(1.5, 0.85 * road.width * scale); ink.stroke();
    });
    ink.globalAlpha = 1;
    for (const [x, y, stands] of vehicles[t]) {
      circle(ink, px(x), py(y), Math.max(1.6, 1.4 * scale));
      ink.strokeStyle = ink.fillStyle = colour(stands ? "opponent" : "agent"); ink.lineWidth = 1;
      if (stands) ink.fill(); else ink.stroke();
    }
    roads.forEach((road, n) => {
      if (!lights[t][n]) return;
      const [x1, y1] = road.points[road.points.length - 1], [x0, y0] = road.points[road.points.length - 2];
      const long = Math.hypot(x1 - x0, y1 - y0) || 1, half = Math.max(2, 0.45 * road.width * scale);
      const [across, along] = [(y1 - y0) / long * half, (x1 - x0) / long * half];
      ink.beginPath(); ink.moveTo(px(x1) - across, py(y1) - along); ink.lineTo(px(x1) + across, py(y1) + along);
      ink.strokeStyle = colour(light[lights[t][n]]); ink.lineWidth = 3.5; ink.stroke();
    });
  }

  function circle(ink, x, y, r) { ink.beginPath(); ink.arc(x, y, r, 0, 2 * Math.PI); }

  function outline(ink, shape, p, grow = 0) {
    const r = Math.max(p.radius, 2) + grow;
    ink.beginPath();
    if (shape.kind === "opponent") ink.rect(p.px - r * 0.9, p.py - r * 0.9, r * 1.8, r * 1.8);
    else if (shape.kind === "landmark" || shape.kind === "goal") {
      ink.moveTo(p.px, p.py - r * 1.25); ink.lineTo(p.px + r * 1.25, p.py); ink.lineTo(p.px, p.py + r * 1.25); ink.lineTo(p.px - r * 1.25, p.py); ink.closePath();
    } else ink.arc(p.px, p.py, r, 0, 2 * Math.PI);
  }

  // Whole dashes to a side, one around each corner: else a small diamond is crumbs.
  function dash(ink, shape, r) {
    const side = shape.kind === "opponent" ? 1.8 * r : shape.kind === "landmark" || shape.kind === "goal" ? 1.25 * Math.SQRT2 * r : 2 * Math.PI * r;
    const period = side / Math.max(2, Math.round(side / 8));
    ink.setLineDash([0.62 * period, 0.38 * period]); ink.lineDashOffset = 0.31 * period;
  }

  function body(ink, shape, p, chosen) {
    const own = shape.colour || colour(shape.kind), r = Math.max(p.radius, 2);
    if (!p.alive) {
      ink.globalAlpha = 0.45; ink.strokeStyle = own; ink.lineWidth = 2; ink.beginPath();
      ink.moveTo(p.px - r * 0.7, p.py - r * 0.7); ink.lineTo(p.px + r * 0.7, p.py + r * 0.7);
      ink.moveTo(p.px + r * 0.7, p.py - r * 0.7); ink.lineTo(p.px - r * 0.7, p.py + r * 0.7); ink.stroke();
      ink.globalAlpha = 1;
      return;
    }
    const failed = p.sight === "failed", hidden = p.sight === "none", faint = failed || hidden, far = p.sight === "far";
    if (shape.kind === "goal") {
      outline(ink, shape, p, 6); ink.globalAlpha = faint ? 0.35 : 1;
      ink.strokeStyle = colour("goal"); ink.lineWidth = 2.5; ink.stroke(); ink.globalAlpha = 1;
    }
    // Large enough for dashes and a stroke to be seen.
    const grow = faint ? Math.max(0, 7 - r) : 0;
    outline(ink, shape, p, grow);
    ink.globalAlpha = faint ? 0.14 : far ? 0.4 : 0.92; ink.fillStyle = own; ink.fill();
    ink.globalAlpha = 1;
    // A landmark's own colour may be as dark as the paper.
    ink.strokeStyle = failed ? colour("failed") : shape.colour ? colour("soft") : own; ink.lineWidth = faint ? 2 : 1.5;
    if (hidden) dash(ink, shape, r + grow);
    ink.stroke(); ink.setLineDash([]); ink.lineDashOffset = 0;
    if (failed) {
      const reach = r + grow + 3;
      ink.beginPath(); ink.moveTo(p.px - reach, p.py + reach); ink.lineTo(p.px + reach, p.py - reach); ink.stroke();
    }
    if (chosen) {
      outline(ink, shape, p, 4); ink.strokeStyle = colour("pick"); ink.lineWidth = 3.5; ink.stroke();
    }
    if (shape.label && r >= 5) {
      ink.fillStyle = faint || far ? colour("ink") : colour("paper"); ink.textAlign = "center"; ink.textBaseline = "middle";
      ink.font = `600 ${Math.max(9, Math.min(15, r * 1.1))}px system-ui, sans-serif`;
      ink.fillText(shape.label, p.px, p.py + 0.5); ink.textBaseline = "alphabetic";
    }
    if (shape.full_health) {
      const width = Math.max(18, r * 2.2), left = p.px - width / 2, above = p.py - r - 9;
      ink.globalAlpha = faint ? 0.35 : 1;
      ink.fillStyle = colour("line"); ink.fillRect(left, above, width, 4);
      ink.fillStyle = own; ink.fillRect(left, above, width * Math.max(0, p.health) / shape.full_health, 4);
      ink.globalAlpha = 1;
    }
  }

  // What an agent's action means in the world: a way, a target, something said.
  function intend(ink, shapes, places, n, agent, action, tint, teachers) {
    const name = film.agents[agent].actions[action] || "", p = places[n], r = Math.max(p.radius, 2);
    ink.strokeStyle = ink.fillStyle = tint; ink.lineWidth = teachers ? 2.5 : 2; ink.setLineDash(teachers ? [4, 3] : []);
    const way = WAYS[name], target = /^target_(\d+)$/.exec(name), said = /^say_(\d+)$/.exec(name);
    if (way) {
      const from = r + 1, to = r + Math.max(10, 0.9 * r), [dx, dy] = [way[0], -way[1]];
      arrow(ink, p.px + dx * from, p.py + dy * from, p.px + dx * to, p.py + dy * to);
    } else if (target) {
      const foes = shapes.map((shape, k) => k).filter((k) => shapes[k].kind === "opponent");
      const foe = places[foes[Number(target[1])]];
      if (foe) {
        ink.globalAlpha = teachers ? 0.9 : 0.45; ink.lineWidth = teachers ? 2 : 1.2; ink.setLineDash(teachers ? [4, 3] : [1, 4]);
        ink.beginPath(); ink.moveTo(p.px, p.py); ink.lineTo(foe.px, foe.py); ink.stroke(); ink.globalAlpha = 1;
      }
    } else if (said) {
      ink.setLineDash([]); ink.font = "600 13px system-ui, sans-serif"; ink.textAlign = "left";
      ink.fillText(teachers ? `(${said[1]})` : `says ${said[1]}`, p.px + r + 5, p.py - r - (teachers ? 16 : 2));
    }
    ink.setLineDash([]);
  }

  function arrow(ink, x0, y0, x1, y1) {
    const angle = Math.atan2(y1 - y0, x1 - x0), head = 6;
    ink.beginPath(); ink.moveTo(x0, y0); ink.lineTo(x1, y1); ink.stroke(); ink.setLineDash([]);
    ink.beginPath(); ink.moveTo(x1 + Math.cos(angle) * 3, y1 + Math.sin(angle) * 3);
    ink.lineTo(x1 - head * Math.cos(angle - 0.6), y1 - head * Math.sin(angle - 0.6));
    ink.lineTo(x1 - head * Math.cos(angle + 0.6), y1 - head * Math.sin(angle + 0.6)); ink.closePath(); ink.fill();
  }

  function shot(ink, from, to, shape, part) {
    ink.strokeStyle = colour(shape.kind); ink.lineWidth = 2.5; ink.globalAlpha = 0.85;
    ink.beginPath(); ink.moveTo(from.px, from.py); ink.lineTo(to.px, to.py); ink.stroke(); ink.globalAlpha = 1;
    const along = part || 0.5;
    circle(ink, from.px + (to.px - from.px) * along, from.py + (to.py - from.py) * along, 3.5);
    ink.fillStyle = colour(shape.kind); ink.fill();
  }

  function mark(ink, p) {
    const x = p.px + Math.max(p.radius, 4) + 3, y = p.py - Math.max(p.radius, 4) - 3;
    circle(ink, x, y, 7.5); ink.fillStyle = colour("differs"); ink.fill();
    ink.fillStyle = colour("paper"); ink.font = "700 12px system-ui, sans-serif"; ink.textAlign = "center"; ink.textBaseline = "middle";
    ink.fillText("≠", x, y + 0.5); ink.textBaseline = "alphabetic";
  }

  // ---- figures under a panel --------------------------------------------------------------------------------------

  function showFigures(k) {
    const take = takes[k], t = Math.min(whole(), take.steps), parts = [];
    const figure = (name, value, kind = "") => parts.push(make("span", { class: kind }, name + " ", make("b", {}, value)));
    figure("return so far", short(take.returns[t]));
    if (take.values) {
      const agents = film.agents.map((_, agent) => take.values.at(t, agent));
      figure("teacher's value of this state", short(state.agent < 0 ? mean(agents) : agents[state.agent]));
    }
    if (panels[k].kind !== "teacher" && take.disagreement !== null) {
      const now = film.agents.filter((_, agent) => differs(take, t, agent)).length;
      if (now) figure("decides otherwise than the teacher:", `${now} of ${film.agents.length}`, "differs");
    }
    if (t >= take.steps) figure("", take.won === null ? "ended" : take.won ? "won" : "not won");
    panels[k].figures.replaceChildren(...parts);
  }

  // ---- curves and decisions over time -----------------------------------------------------------------------------

  let playhead = null, curveLeft = 64, curveWidth = 100;
  function buildCurves() {
    const box = $("curves"), wide = Math.max(280, box.clientWidth), right = 12;
    curveLeft = 92; curveWidth = wide - curveLeft - right;
    const x = (t) => curveLeft + curveWidth * t / Math.max(1, longest);
    const svg = draw("svg", { role: "img", "aria-label": "Return, value and decisions over time" });
    let y = 4;
    const plot = (title, high, lines) => {
      const values = lines.flatMap((line) => line.values).filter(Number.isFinite);
      const low = Math.min(...values), top = Math.max(...values), span = top - low || 1;
      const base = y + 22, at = (value) => base + high - high * (value - low) / span;
      svg.append(draw("text", { x: 0, y: y + 12, class: "name" }, title));
      svg.append(draw("text", { x: curveLeft - 6, y: at(top) + 8, "text-anchor": "end" }, short(top)));
      svg.append(draw("text", { x: curveLeft - 6, y: at(low) + 4, "text-anchor": "end" }, short(low)));
      const ground = at(Math.min(top, Math.max(low, 0)));
      svg.append(draw("line", { x1: curveLeft, x2: x(longest), y1: ground, y2: ground, stroke: "var(--line)" }));
      for (const line of lines) {
        const points = line.values.map((value, t) => `${x(t).toFixed(1)},${at(value).toFixed(1)}`).join(" ");
        svg.append(draw("polyline", { points, fill: "none", stroke: line.colour, "stroke-width": 2.2,
          "stroke-dasharray": line.dashed ? "6 3" : "none" }));
        svg.append(draw("circle", { cx: x(line.values.length - 1), cy: at(line.values[line.values.length - 1]), r: 3.5, fill: line.colour }));
      }
      y += high + 36;
    };
    const dashed = (k) => panels[k].kind === "teacher";
    plot("return so far", 70, takes.map((take, k) => ({ values: take.returns, colour: `var(--panel${k})`, dashed: dashed(k) })));
    if (takes.some((take) => take.values)) {
      plot(state.agent < 0 ? "teacher's value of the state, mean over agents" : "teacher's value of the state", 44,
        takes.map((take, k) => ({ take, k })).filter(({ take }) => take.values).map(({ take, k }) => ({
          colour: `var(--panel${k})`, dashed: dashed(k),
          values: Array.from({ length: take.steps + 1 }, (_, t) => state.agent < 0
            ? mean(film.agents.map((__, agent) => take.values.at(t, agent))) : take.values.at(t, state.agent)) })));
    }
    takes.forEach((take, k) => {
      if (panels[k].kind === "teacher" || !take.teacher_actions) return;
      const count = film.agents.length, row = count > 12 ? 5 : 13;
      svg.append(draw("text", { x: 0, y: y + 12, class: "name" }, `${panels[k].name}'s decisions that differ from the teacher's`));
      y += 18;
      film.agents.forEach((agent, a) => {
        if (row > 8) svg.append(draw("text", { x: curveLeft - 6, y: y + row - 3, "text-anchor": "end" },
          agent.name.length > 13 ? agent.name.slice(0, 12) + "…" : agent.name));
        for (let t = 0; t < take.steps; t++) {
          const odd = differs(take, t, a), choice = take.deciding.at(t, a);
          if (!choice) continue;
          const cell = draw("rect", { x: x(t) + 0.5, y, width: Math.max(1, x(1) - x(0) - 1), height: row - 2, rx: 1.5,
            fill: odd ? "var(--differs)" : "var(--line)", "data-agent": a, "data-step": t, class: odd ? "odd" : "" });
          cell.append(draw("title", {}, `step ${t}, ${agent.name}: ${actionName(a, take.actions.at(t, a))}` +
            (odd ? `, the teacher would ${actionName(a, take.teacher_actions.at(t, a))}` : ", as the teacher would")));
          svg.append(cell);
        }
        y += row;
      });
      y += 8;
    });
    playhead = draw("line", { y1: 2, y2: y, stroke: "var(--pick)", "stroke-width": 2.5 });
    svg.append(playhead);
    svg.setAttribute("viewBox", `0 0 ${wide} ${y + 4}`); svg.setAttribute("height", y + 4);
    let held = false;
    const goTo = (event) => {
      const where = (event.clientX - svg.getBoundingClientRect().left) * wide / svg.clientWidth;
      pause(); go(Math.round((where - curveLeft) / curveWidth * longest));
    };
    svg.addEventListener("pointerdown", (event) => {
      held = true; svg.setPointerCapture(event.pointerId);
      if (event.target.dataset.agent) select(Number(event.target.dataset.agent)); else goTo(event);
      if (event.target.dataset.step) { pause(); go(Number(event.target.dataset.step)); }
    });
    svg.addEventListener("pointermove", (event) => { if (held) goTo(event); });
    svg.addEventListener("pointerup", () => { held = false; });
    box.replaceChildren(svg);
  }

  // ---- what the chosen agent sees and does ------------------------------------------------------------------------

  let minds = [];
  function buildEyes() {
    minds = state.agent < 0 ? [] : panels.map((panel, k) => mind(panel, k));
    $("eyes").replaceChildren(...minds.map((one) => one.box));
  }

  function mind(panel, k) {
    const agent = state.agent, take = takes[k], facts = film.agents[agent];
    const box = make("article", { class: "mind card", style: `--mine: var(--panel${k})`, "data-panel": k });
    box.append(make("h2", {}, `${facts.name}, ${panel.name.toLowerCase()}`));
    const doing = make("p", { class: "doing" });
    box.append(doing);
    const both = take.chances && take.teacher_chances && panel.kind !== "teacher", bars = [];
    if (take.chances || take.teacher_chances) {
      box.append(make("h3", {}, both ? "how probable each action is: its own above, the teacher's below"
        : take.chances ? "how probable each action is" : "how probable the teacher finds each action; a bundle tells its choice only"));
      const list = make("div", { class: "bars" });
      facts.actions.forEach((name, action) => {
        if (name === null) return;
        const own = make("div", { class: "own" }), expert = make("div", { class: "expert" });
        const track = make("div", { class: both ? "track both" : "track" });
        if (take.chances) track.append(own);
        if (both || !take.chances) track.append(expert);
        const label = make("span", {}, name), share = make("span", { class: "share" });
        list.append(label, track, share);
        bars.push({ action, own, expert, label, share });
      });
      box.append(list);
    }
    box.append(make("h3", {}, "what it is shown"));
    const groups = make("ul", { class: "groups" });
    const chips = facts.groups.map((group) => {
      const told = group.features.filter((feature) => take.visible.at(agent, feature)).length;
      if (group.derived && !told) return null;
      const chip = make("li");
      groups.append(chip);
      return { chip, group, told };
    }).filter(Boolean);
    box.append(groups);
    const cells = [];
    if (take.obs) {
      const rows = new Map();
      facts.features.forEach(([name, stem], feature) => {
        const group = facts.groups.find((one) => one.features.includes(feature));
        if (!name || (group && group.derived && !take.visible.at(agent, feature))) return;
        const row = name === stem ? (group ? group.name : stem) : stem;
        if (!rows.has(row)) rows.set(row, make("div", { class: "cells" }));
        const value = document.createTextNode("");
        const cell = make("div", { class: "cell", "data-feature": name }, make("small", {}, name === stem ? name : name.slice(stem.length + 1)), value);
        rows.get(row).append(cell);
        cells.push({ feature, cell, value, name });
      });
      const values = make("div", { class: "values" });
      for (const [row, line] of rows) values.append(make("span", {}, row), line);
      const details = make("details", {}, make("summary", {}, `its ${cells.length} features, number by number`), values);
      details.open = state.numbers === null ? cells.length <= 40 && innerWidth > 700 : state.numbers;
      details.addEventListener("toggle", () => { state.numbers = details.open; });
      box.append(details);
    }
    return { box, doing, bars, chips, cells, k };
  }

  function showEyes() {
    for (const { doing, bars, chips, cells, k } of minds) {
      const take = takes[k], agent = state.agent, t = Math.min(whole(), take.steps), over = t >= take.steps;
      const idle = !over && !take.deciding.at(t, agent), dead = !alive(take, t, agent);
      const words = [];
      if (dead) words.push("is dead");
      else if (over) words.push("the episode is over");
      else words.push("does ", make("b", {}, actionName(agent, take.actions.at(t, agent))), idle ? ", the only thing it can" : "");
      if (!dead && !over && panels[k].kind !== "teacher" && take.teacher_actions && !idle) {
        const expert = actionName(agent, take.teacher_actions.at(t, agent));
        words.push(differs(take, t, agent) ? make("span", { class: "differs" }, ` ≠ the teacher, in its place, would ${expert}`) : ", as the teacher would in its place");
      }
      if (take.messages && !over) {
        const bits = Array.from({ length: take.messages.shape[2] }, (_, bit) => take.messages.at(t, agent, bit));
        words.push(bits[0] ? "; sends " : "; sends nothing", ...(bits[0] ? [make("b", { class: "bits" }, bits.map((bit) => (bit > 0 ? "1" : "0")).join(""))] : []));
      }
      const live = over || dead ? null : decidesLive(k, agent);
      if (live) {
        const { action, logits } = live[t], same = action === take.actions.at(t, agent);
        const list = logits.map((logit, i) => `${actionName(agent, i)} ${short(logit)}`).join(", ");
        words.push(make("span", { class: same ? "live" : "live differs", title: "logits: " + list },
          action < 0 ? `; its C in this page refuses: fault ${action}` : same ? "; so does its C in this page" : `; ≠ its C in this page does ${actionName(agent, action)}`));
      }
      doing.replaceChildren(...words);
      for (const { action, own, expert, label, share } of bars) {
        const may = !over && take.available.at(t, agent, action);
        const mine = over || !take.chances ? 0 : take.chances.at(t, agent, action);
        const his = over || !take.teacher_chances ? 0 : take.teacher_chances.at(t, agent, action);
        own.style.width = 100 * mine + "%"; expert.style.width = 100 * his + "%";
        label.className = over || dead ? "" : !may ? "not" : take.actions.at(t, agent) === action ? "taken" : "";
        label.title = may || over ? "" : "not available now";
        share.textContent = over || dead ? "" : Math.round(100 * (take.chances ? mine : his)) + " %";
      }
      for (const { chip, group, told } of chips) {
        const lost = group.features.filter((feature) => take.visible.at(agent, feature) && failedNow(agent, feature, t)).length;
        const words = `${group.name}${group.words ? ", " + group.words : ""}`;
        chip.className = lost ? "failed" : told ? "" : "hidden";
        chip.textContent = lost ? `✕ ${words}: failed` : !told ? `✕ ${words}: hidden`
          : told < group.features.length ? `◐ ${words}: ${told} of ${group.features.length} numbers` : `✓ ${words}`;
      }
      for (const { feature, cell, value, name } of cells) {
        const seen = take.visible.at(agent, feature), lost = seen && failedNow(agent, feature, t);
        const number = take.obs.at(t, agent, feature);
        cell.className = "cell" + (lost ? " failed" : seen ? "" : " hidden");
        value.data = seen ? short(number) : "–";
        cell.title = `${name}: ${seen ? number : `hidden (${short(number)})`}${lost ? ", failed" : ""}`;
        const strength = Math.min(40, 40 * Math.abs(number));
        cell.style.backgroundColor = seen && !lost ? `color-mix(in srgb, var(--${number < 0 ? "low" : "high"}) ${strength}%, var(--paper))` : "";
      }
    }
  }

  // ---- playing ----------------------------------------------------------------------------------------------------

  function render() {
    panels.forEach((panel, k) => { if (takes[k].world) drawWorld(k); });
  }
  let shown = -1;
  function update() {
    render();
    if (shown === whole()) return;
    shown = whole();
    panels.forEach((_, k) => showFigures(k));
    showEyes();
    $("scrub").value = shown;
    $("step").replaceChildren(wide("step "), String(shown), wide(" of "), make("span", { class: "narrow" }, "/"), String(longest));
    const x = curveLeft + curveWidth * shown / Math.max(1, longest);
    playhead.setAttribute("x1", x); playhead.setAttribute("x2", x);
  }
  function rebuild() {
    shown = -1;
    buildCurves(); buildEyes(); update();
  }
  function go(step) {
    state.step = Math.max(0, Math.min(longest, step));
    update();
  }
  let last = 0;
  function tick(now) {
    if (!state.playing) return;
    const ahead = (now - last) / 1000 * state.speed;
    if (!stillness.matches || ahead >= 1) {
      last = now;
      go(stillness.matches ? whole() + 1 : state.step + ahead);
    }
    if (state.step >= longest) pause(); else requestAnimationFrame(tick);
  }
  // What a phone's row of controls has no room for.
  const wide = (text) => make("span", { class: "wide" }, text);
  function playButton(sign, word) {
    $("play").replaceChildren(sign, wide(" " + word)); $("play").setAttribute("aria-label", word);
  }
  function play() {
    if (state.step >= longest) go(0);
    state.playing = true; last = performance.now();
    playButton("❚❚", "Pause");
    requestAnimationFrame(tick);
  }
  function pause() {
    state.playing = false; state.step = whole();
    playButton("▶", "Play");
    update();
  }
  function choose(episode) {
    state.episode = episode;
    decided = new Map();
    takes = takesOf(episode);
    longest = Math.max(...takes.map((take) => take.steps));
    frame = takes[0].world ? frameOf(takes.filter((take) => take.world)) : null;
    state.step = 0;
    $("scrub").max = longest;
    const option = [...$("episode").options].find((one) => Number(one.value) === episode && one.dataset.all);
    if (Number($("episode").value) !== episode) $("episode").value = option.value;
    const take = takes[leading], name = panels[leading].name;
    const parts = [`Episode ${episode + 1} of ${film.episodes.length}.`];
    parts.push(panels.map((panel, k) => `${panel.name}: return ${short(takes[k].returned)} in ${takes[k].steps} steps` +
      (takes[k].won === null ? "" : takes[k].won ? ", won" : ", not won")).join(". ") + ".");
    if (panels[leading].kind !== "teacher" && take.disagreement !== null)
      parts.push(`${name} decides otherwise than the teacher in ${Math.round(100 * take.disagreement)} % of its decisions.`);
    if (!film.episodes[episode].same_start) parts.push("The players do not begin in the same state here: the environment draws on.");
    $("caption").textContent = parts.join(" ");
    rebuild();
  }
  function select(agent) {
    state.agent = agent;
    for (const button of $("agents").querySelectorAll("button")) button.setAttribute("aria-checked", Number(button.dataset.agent) === agent);
    rebuild();
  }

  // ---- the page around it -----------------------------------------------------------------------------------------

  const WORDS = { median: "the median", best: "the best", worst: "the worst", disagreement: "the most disagreement" };
  function build() {
    const names = panels.map((panel) => panel.name.toLowerCase());
    $("title").textContent = `${film.task}: ${names.join(names.length > 2 ? ", " : " and ")}` + (names.length > 1 ? ", side by side" : "");
    const kinds = new Set(panels.map((panel) => panel.kind));
    $("lead").textContent = kinds.size > 1
      ? "A teacher that sees everything, and what was distilled from it: small agents, each with its own sensors. All play the same episodes."
      : kinds.has("teacher") ? "A teacher that sees everything plays." : "A bundle of small agents plays, each with its own sensors.";
    const scores = panels.map((panel, k) => {
      const all = film.episodes.map((episode) => episode.takes[k]), wins = all.map((take) => take.won);
      return `${panel.name} ${short(mean(all.map((take) => take.returned)))}` +
        (wins[0] === null ? "" : `, ${Math.round(100 * mean(wins.map(Number)))} % won`);
    });
    $("subtitle").textContent = `${film.episodes.length} episodes that begin alike for all, seed ${film.seed}, actions greedy. ` +
      `Mean return: ${scores.join("; ")}.`;
    if (film.failures.length) $("failing").textContent = "Sensors fail here, " +
      (panels.length > 1 ? "for all players alike" : "in every episode") + `: ${film.failures.join("; ")}.`;
    $("notes").append(...film.notes.map((note) => make("li", {}, note)));
    const picks = make("optgroup", { label: panels.length > 1 ? `Of ${panels[leading].name.toLowerCase()}'s episodes` : "Picks" });
    const label = (take) => `return ${short(take.returned)}` + (take.won === null ? "" : take.won ? ", won" : ", not won");
    for (const [word, episode] of Object.entries(film.picks)) {
      const take = film.episodes[episode].takes[leading];
      picks.append(make("option", { value: episode, "data-pick": word }, `${WORDS[word]}: episode ${episode + 1}, ` +
        (word === "disagreement" ? `${Math.round(100 * take.disagreement)} % otherwise` : label(take))));
    }
    const all = make("optgroup", { label: "All episodes" });
    film.episodes.forEach((one, episode) => all.append(make("option", { value: episode, "data-all": 1 },
      `episode ${episode + 1}, ${label(one.takes[leading])}`)));
    $("episode").append(picks, all);
    $("agents").append(make("span", {}, "Through the eyes of "));
    [...film.agents.map((agent) => agent.name), "nobody"].forEach((name, k) => {
      const agent = k < film.agents.length ? k : -1;
      const button = make("button", { role: "radio", "data-agent": agent, "aria-checked": "false" }, name);
      button.addEventListener("click", () => select(agent));
      $("agents").append(button);
    });
    legend();
    $("episode").addEventListener("change", () => choose(Number($("episode").value)));
    $("play").addEventListener("click", () => state.playing ? pause() : play());
    $("first").addEventListener("click", () => { pause(); go(0); });
    $("last").addEventListener("click", () => { pause(); go(longest); });
    $("back").addEventListener("click", () => { pause(); go(whole() - 1); });
    $("forward").addEventListener("click", () => { pause(); go(whole() + 1); });
    $("scrub").addEventListener("input", () => { const to = Number($("scrub").value); pause(); go(to); });
    $("speed").addEventListener("change", () => { state.speed = Number($("speed").value); });
    document.addEventListener("keydown", key);
    addEventListener("resize", rebuild);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", rebuild);
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const speeds = $("speed"), turn = (by) => {
      speeds.selectedIndex = Math.max(0, Math.min(speeds.options.length - 1, speeds.selectedIndex + by));
      state.speed = Number(speeds.value);
    };
    const episodes = film.episodes.length;
    const actions = {
      " ": () => state.playing ? pause() : play(),
      ArrowLeft: () => { pause(); go(whole() - 1); },
      ArrowRight: () => { pause(); go(whole() + 1); },
      Home: () => { pause(); go(0); },
      End: () => { pause(); go(longest); },
      n: () => choose((state.episode + 1) % episodes),
      p: () => choose((state.episode + episodes - 1) % episodes),
      "+": () => turn(1), "=": () => turn(1), "-": () => turn(-1),
      Escape: () => select(-1),
    };
    const number = /^[0-9]$/.test(event.key) ? Number(event.key) : -1;
    if (number >= 0 && number < film.agents.length) select(number);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  }

  function legend() {
    const world = film.episodes[0].takes[leading].world, items = [];
    const item = (picture, text) => {
      const svg = draw("svg", { width: 44, height: 24, viewBox: "0 0 44 24" });
      svg.append(...picture);
      items.push(make("li", {}, svg, make("span", {}, text)));
    };
    const disc = (extra) => draw("circle", { cx: 22, cy: 12, r: 8, fill: "var(--agent)", ...extra });
    const diamond = (extra) => draw("path", { d: "M22 4 L30 12 L22 20 L14 12 Z", ...extra });
    if (world) {
      const kinds = new Set(world.shapes.map((shape) => shape.kind)), fights = world.shapes.some((shape) => shape.full_health);
      item([disc({})], "an agent, with its number");
      if (kinds.has("opponent")) item([draw("rect", { x: 14, y: 4, width: 16, height: 16, fill: "var(--opponent)" })], fights ? "an enemy, with its number" : "the adversary");
      if (kinds.has("landmark")) item([diamond({ fill: "var(--landmark)" })], "a landmark");
      if (kinds.has("goal")) item([diamond({ fill: "none", stroke: "var(--goal)", "stroke-width": 2.5 })], "around the landmark that is the goal");
      item([disc({ stroke: "var(--pick)", "stroke-width": 4, r: 9 })], "the agent through whose eyes you look");
      item([disc({ "fill-opacity": 0.14, stroke: "var(--agent)", "stroke-width": 2, "stroke-dasharray": "4 3", r: 7.5, cx: 11 }),
        diamond({ fill: "none", stroke: "var(--soft)", "stroke-width": 2, "stroke-dasharray": "3.5 2.16", "stroke-dashoffset": 1.75, transform: "translate(11 0)" })],
      "faded and dashed: hidden from that agent by its limits");
      if (film.failed) item([disc({ "fill-opacity": 0.14, stroke: "var(--failed)", "stroke-width": 2, r: 7.5, cx: 11 }),
        diamond({ fill: "none", stroke: "var(--failed)", "stroke-width": 2, transform: "translate(11 0)" }),
        draw("path", { d: "M3 20 L19 4 M25 20 L41 4", stroke: "var(--failed)", "stroke-width": 2 })],
      "struck through: that agent's sensors for it have failed, and read zero");
      if (world.shapes.some((shape) => shape.sight)) {
        item([disc({ "fill-opacity": 0.4 })], "paler: outside its range of sight now, the dotted yellow ring");
        item([draw("line", { x1: 6, x2: 38, y1: 12, y2: 12, stroke: "var(--agent)", "stroke-width": 2.5 }), draw("circle", { cx: 22, cy: 12, r: 3.5, fill: "var(--agent)" })], "a hit in this step; fine dots: it only aims");
        item([draw("rect", { x: 6, y: 10, width: 32, height: 5, fill: "var(--line)" }), draw("rect", { x: 6, y: 10, width: 20, height: 5, fill: "var(--agent)" })], "the health that is left; a cross: dead");
      }
      item([draw("line", { x1: 8, x2: 30, y1: 12, y2: 12, stroke: "var(--ink)", "stroke-width": 2 }), draw("path", { d: "M36 12 L28 8 L28 16 Z", fill: "var(--ink)" })], "where the agent moves in this step");
    }
    if (film.episodes[0].takes.some((take, k) => panels[k].kind !== "teacher" && take.teacher_actions)) {
      item([draw("circle", { cx: 22, cy: 12, r: 8, fill: "var(--differs)" }), draw("text", { x: 22, y: 16, "text-anchor": "middle", "font-size": 12, fill: "var(--paper)" }, "≠")], "it decides otherwise than the teacher would in its place");
      item([draw("line", { x1: 6, x2: 38, y1: 12, y2: 12, stroke: "var(--differs)", "stroke-width": 2.5, "stroke-dasharray": "4 3" })], "what the teacher would do there");
    }
    const hatch = make("span", { class: "cell hidden swatch" }, "–");
    items.push(make("li", {}, hatch, make("span", {}, "hatched: numbers that the agent is not shown")));
    if (film.failed) items.push(make("li", {}, make("span", { class: "cell failed" }, "0"), make("span", {}, "hatched the other way: a sensor that has failed reads zero")));
    $("legend").append(...items);
  }

  build();
  playButton("▶", "Play");
  choose(film.first);
  select(film.eyes);
  // For tests and for whoever opens a console: the film, what was drawn last, and the controls.
  window.watch = { film, state, go, play, pause, choose, select, takes: () => takes, drawn: (panel) => drawn[panel],
    live: decidesLive };
  if (film.live) bringToLife().then(rebuild, (error) => { $("notes").append(make("li", {}, `The C of the agents does not run here: ${error.message}`)); });
})();
