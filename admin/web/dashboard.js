// The dashboard: it shows what /api/v1/ says, and nothing else; steer.js gives orders. Texts go into the
// page as text only; no markup is made of what comes from a server.

const $ = (selector, at = document) => at.querySelector(selector);
const signs = { good: "\u2713", warn: "\u25B2", bad: "\u2715" };

// el makes an element: el("p.dim", {title: "x"}, "text", child).
function el(what, props = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [k, v] of Object.entries(props)) node.setAttribute(k, v);
  node.append(...children);
  return node;
}

// set changes a text only when it differs, so that what is selected stays so.
function set(node, text) {
  text = String(text);
  if (node.textContent !== text) node.textContent = text;
}

function show(node, visible) { node.hidden = !visible; }

// keyed keeps one child of parent for each item, in their order. Children that
// stay are changed, not made anew: they keep focus and what is open.
function keyed(parent, items, keyOf, make, update) {
  const have = new Map([...parent.children].map((c) => [c.dataset.key, c]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = have.get(key);
    have.delete(key);
    if (!node) {
      node = make(item);
      node.dataset.key = key;
    }
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
    update(node, item);
  }
  for (const gone of have.values()) gone.remove();
}

// table fills a table: columns are [title, value of a row, class].
function table(parent, columns, rows, keyOf, none) {
  let scroll = $(".scroll", parent);
  if (!scroll) {
    scroll = el("div.scroll", { tabindex: "0", role: "region", "aria-label": parent.closest("section").querySelector("h2").textContent },
      el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((c) => el(c[2] ? "th." + c[2] : "th", { scope: "col" }, c[0])))), el("tbody")));
    parent.append(scroll, el("p.dim.none"));
  }
  show(scroll, rows.length > 0);
  set($(".none", parent), rows.length > 0 ? "" : none);
  show($(".none", parent), rows.length === 0 && none !== "");
  keyed($("tbody", scroll), rows, keyOf,
    () => el("tr", {}, ...columns.map((c) => el(c[2] ? "td." + c[2] : "td"))),
    (tr, row) => columns.forEach((c, i) => set(tr.children[i], c[1](row))));
}

const count = (n) => (n === null || n === undefined ? "" : Math.abs(n) >= 1000 || Number.isInteger(n) ? Math.round(n).toLocaleString("en") : n.toPrecision(3).replace(/\.?0+$/, ""));
const part = (x) => (100 * x).toFixed(1).replace(/\.0$/, "") + " %";

function span(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.0005) return seconds <= 0 ? "0 ms" : (seconds * 1000).toFixed(2) + " ms";
  if (seconds < 1) return (seconds * 1000).toPrecision(seconds < 0.01 ? 2 : 3).replace(/\.?0+$/, (z) => (z[0] === "." ? "" : z)) + " ms";
  if (seconds < 60) return (seconds < 10 && !Number.isInteger(seconds) ? seconds.toFixed(1) : Math.round(seconds)) + " s";
  const m = Math.floor(seconds / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (h < 1) return `${m} min ${Math.floor(seconds % 60)} s`;
  return d < 1 ? `${h} h ${m % 60} min` : `${d} d ${h % 24} h`;
}

function bytes(n) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return `${i ? n.toPrecision(3) : n} ${units[i]}`;
}

const since = (at, now) => (at ? span(Math.max(0, (Date.parse(now) - Date.parse(at)) / 1000)) : "");

// state is what was heard last.
const state = { status: null, before: null, slots: null, moves: null, proxies: null, doubts: null, events: null, statements: null, history: null, picked: "", heard: 0, version: "" };

// ---------------------------------------------------------------- the status

function drawStatus() {
  const s = state.status, v = s.verdict;
  const verdict = $("#verdict");
  if (!$(".sign", verdict)) verdict.replaceChildren(el("span.sign", { "aria-hidden": "true" }), el("span.text"));
  verdict.className = "verdict " + v.class;
  set($(".sign", verdict), signs[v.class]);
  set($(".text", verdict), v.text);
  if (verdict.dataset.class !== v.class) set($("#say"), v.text); // once, not with each second of it
  verdict.dataset.class = v.class;
  document.title = `${signs[v.class]} shardproxy`;
  const p = s.process;
  set($("#about"), [s.version, `up ${span(p.uptime_seconds)}`, `${count(s.databases.reduce((n, d) => n + d.clients, 0))} of ${count(p.clients_limit)} clients`,
    p.draining ? "draining" : p.listening ? "listening" : "not listening"].filter(Boolean).join(", "));
  drawTrouble(s);
  keyed($("#shards .databases"), s.databases, (d) => d.name, () => el("div.database", {}, el("h3"), el("ul.grid")), (box, d) => drawDatabase(box, d, s));
  drawPools(s.pools);
  drawPick(s.databases);
}

function drawTrouble(s) {
  const held = [];
  for (const d of s.databases) {
    if (d.paused) held.push({ what: `database ${d.name}`, why: "PAUSE or KILL is in force", g: null });
    for (const sh of d.shards) if (sh.gate.closed || sh.gate.held) held.push({ what: `shard ${sh.name} of ${d.name}`, why: sh.gate.reason || (sh.gate.draining ? "letting go" : ""), g: sh.gate });
  }
  for (const m of state.slots?.databases ?? []) {
    const n = m.shards.reduce((sum, sh) => sum + sh.slots_held, 0);
    if (n) held.push({ what: `${count(n)} slots of ${m.name}`, why: "their writes wait while they move", g: null });
    if (m.closed) held.push({ what: `all shards of ${m.name}`, why: "a shard joins or leaves: definitions wait, and writes that concern all", g: null });
  }
  show($("#trouble"), s.verdict.reasons.length > 0 || held.length > 0);
  keyed($("#trouble .reasons"), s.verdict.reasons.map((r, i) => ({ ...r, i })), (r) => r.i,
    () => el("li", {}, el("span.sign", { "aria-hidden": "true" }), el("span.text")),
    (li, r) => { li.className = r.class; set($(".sign", li), signs[r.class]); set($(".text", li), r.text); });
  table($("#trouble .held"), [
    ["held", (h) => h.what], ["why", (h) => h.why, "wide"], ["since", (h) => since(h.g?.closed_since, s.at), "n"],
    ["statements", (h) => (h.g ? count(h.g.held) : ""), "n"], ["of at most", (h) => (h.g ? count(h.g.held_limit) : ""), "n"],
    ["the first waits", (h) => (h.g?.held ? span(h.g.oldest_held_seconds) : ""), "n"],
  ], held, (h) => h.what, "");
}

function drawDatabase(box, d, s) {
  const was = state.before?.databases.find((o) => o.name === d.name);
  const took = was ? (Date.parse(s.at) - Date.parse(state.before.at)) / 1000 : 0;
  const rate = took > 0 && d.statements_total >= was.statements_total ? `, ${count((d.statements_total - was.statements_total) / took)} statements/s` : "";
  const bad = d.shards.filter((sh) => sh.class !== "good").length;
  const h3 = $("h3", box);
  if (!h3.children.length) h3.append(el("span"), el("span.dim"));
  set(h3.children[0], `${d.name}: `);
  set(h3.children[1], `${d.shards.length} ${d.shards.length === 1 ? "shard" : "shards"}${bad ? `, ${bad} not well` : ", all well"}; ${count(d.clients)}${d.clients_limit ? ` of ${count(d.clients_limit)}` : ""} clients, ${d.mode} pooling${d.paused ? ", PAUSED" : ""}${rate}`);
  const grid = $(".grid", box);
  grid.classList.toggle("many", d.shards.length > 16);
  keyed(grid, d.shards, (sh) => sh.name, makeShard, (li, sh) => drawShard(li, sh, s.at, d.shards.length > 16));
}

function makeShard() {
  return el("li.shard", {}, el("h4", {}, el("span.sign", { "aria-hidden": "true" }), el("span.name"), el("span.state")), el("ul"));
}

function drawShard(li, sh, now, many) {
  li.className = "shard " + sh.class;
  li.dataset.shard = sh.name;
  li.dataset.class = sh.class;
  li.title = sh.why;
  set($(".sign", li), signs[sh.class]);
  set($(".name", li), sh.name);
  set($(".state", li), sh.class === "bad" ? "no primary" : sh.gate.closed ? "held" : sh.class === "good" ? "ok" : sh.nodes.some((n) => n.reason) ? "degraded" : "clients wait");
  keyed($("ul", li), sh.nodes, (n) => n.address, () => el("li.node", {}, el("span.mark"), el("span.address"), el("span.figures"), el("span.why")),
    (row, n) => drawNode(row, n, now, many));
}

function drawNode(row, n, now, many) {
  const used = n.reason === "";
  row.className = "node " + (used ? "good" : n.health === "lagging" ? "warn" : "bad");
  row.dataset.health = n.health;
  row.dataset.address = n.address;
  const role = n.writes ? "primary, takes writes" : n.role;
  row.title = `${n.address}: ${role}, ${n.health} for ${since(n.since, now)}, probed in ${span(n.probe_seconds)}, ${n.servers_active} connections busy, ${n.servers_idle} idle${n.lag_bytes !== null ? `, ${bytes(n.lag_bytes)} behind` : ""}`;
  const [mark, address, figures, why] = row.children;
  set(mark, !used ? "\u2715" : n.writes ? "\u25A0" : n.role === "replica" ? "\u25CB" : "?");
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", used ? role : `${role}, ${n.health}`);
  set(address, n.address);
  const said = [];
  if (!used) said.push(n.health);
  else if (n.clients_waiting) said.push(`${n.clients_waiting} wait`);
  else if (n.writes && !many) said.push("primary");
  if (n.lag_seconds !== null) said.push((many ? "" : "lag ") + span(n.lag_seconds));
  if (!many) said.push(`${n.servers_active} busy`, `${n.servers_idle} idle`);
  set(figures, said.join(", "));
  const error = n.last_error && n.last_error !== n.reason ? `${n.last_error} (${since(n.last_error_at, now)} ago)` : "";
  set(why, used ? "" : [`${n.role === "unknown" ? "" : n.role + ", "}for ${since(n.since, now)}: ${n.reason}`, error].filter(Boolean).join("; "));
  show(why, !used);
}

const poolsShown = 100;

function drawPools(pools) {
  const rows = [...pools].sort((a, b) => b.clients_waiting - a.clients_waiting || b.servers_active - a.servers_active);
  const body = $("#pools .body");
  table(body, [
    ["database", (p) => p.database], ["user", (p) => p.user], ["shard", (p) => p.shard], ["node", (p) => p.node], ["busy", (p) => count(p.servers_active), "n"],
    ["idle", (p) => count(p.servers_idle), "n"], ["opening", (p) => count(p.servers_opening), "n"], ["of at most", (p) => count(p.servers_limit), "n"],
    ["clients waiting", (p) => count(p.clients_waiting), "n"], ["the first for", (p) => (p.clients_waiting ? span(p.longest_wait_seconds) : ""), "n"],
  ], rows.slice(0, poolsShown), (p) => [p.database, p.user, p.shard, p.node].join("\n"), "No pool was used yet.");
  let more = $(".more", body);
  if (!more) body.append((more = el("p.dim.more")));
  set(more, rows.length > poolsShown ? `${count(rows.length - poolsShown)} more are in api/v1/status; those with clients that wait come first.` : "");
}

// ---------------------------------------------------------------- the last hour

const plots = [
  ["Statements", "/s", [["statements_per_second", "all"], ["replica_reads_per_second", "on replicas"]]],
  ["Time of a request", "time", [["request_p50_seconds", "half"], ["request_p99_seconds", "99 %"]]],
  ["Errors", "/s", [["errors_per_second", "told to clients"], ["retries_per_second", "tried again unseen"]]],
  ["Wait for a server connection", "time", [["lease_wait_seconds", "mean"]]],
  ["Waiting", "", [["clients_waiting", "for a connection"], ["statements_held", "held at a gate"]]],
  ["Transactions", "/s", [["transactions_per_second", "all"]]],
  ["Clients", "", [["clients", "logged in"]]],
];
const plotHigh = 100, hour = 3600;

function drawPick(databases) {
  const names = databases.length > 1 ? ["", ...databases.map((d) => d.name)] : [""];
  const select = $("#history select");
  if (select.options.length !== names.length || names.some((n, i) => select.options[i].value !== n)) {
    select.replaceChildren(...names.map((n) => el("option", { value: n }, n || "all")));
    if (!names.includes(state.picked)) state.picked = "";
    select.value = state.picked;
  }
  show($("#history .pick"), names.length > 1);
}

function takeHistory(page) {
  const h = state.history;
  if (!h) { state.history = page; drawHistory(); return; }
  const last = h.sampled_at_unix_seconds.at(-1) ?? 0;
  page.sampled_at_unix_seconds.forEach((at, i) => {
    if (at <= last) return;
    h.sampled_at_unix_seconds.push(at);
    const length = h.sampled_at_unix_seconds.length;
    const add = (to, from) => { for (const k of Object.keys(h.total)) { to[k] ??= []; while (to[k].length < length - 1) to[k].push(null); to[k].push(from?.[k][i] ?? null); } };
    add(h.total, page.total);
    for (const name of Object.keys(page.databases)) h.databases[name] ??= {};
    for (const name of Object.keys(h.databases)) add(h.databases[name], page.databases[name]);
  });
  const over = h.sampled_at_unix_seconds.length - h.kept_samples;
  if (over > 0) for (const line of [h.sampled_at_unix_seconds, ...[h.total, ...Object.values(h.databases)].flatMap(Object.values)]) line.splice(0, over);
  drawHistory();
}

function drawHistory() {
  const h = state.history;
  if (!h) return;
  const lines = (state.picked && h.databases[state.picked]) || h.total;
  keyed($("#history .plots"), plots, (p) => p[0], makePlot, (figure, p) => drawPlot(figure, p, h, lines));
}

function svg(tag, props) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(props)) node.setAttribute(k, v);
  return node;
}

function makePlot([title, , series]) {
  const keys = series.map(([, word], i) => el(i ? "span.key.second" : "span.key", {}, word));
  const picture = svg("svg", { viewBox: `0 0 ${hour} ${plotHigh}`, preserveAspectRatio: "none", role: "img" });
  picture.append(svg("line", { class: "axis", x1: 0, x2: hour, y1: plotHigh, y2: plotHigh }), svg("path", { class: "area" }),
    ...series.map((_, i) => svg("path", { class: i ? "line second" : "line" })), svg("line", { class: "cross", y1: 0, y2: plotHigh, visibility: "hidden" }));
  const figure = el("figure.plot", { tabindex: "0" }, el("figcaption", {}, el("b", {}, title), ...keys, el("span.now")), picture,
    el("div.scale", { "aria-hidden": "true" }, el("span", {}, "1 h ago"), el("span.top"), el("span", {}, "now")));
  const look = (at) => { figure.look = at; drawHistory(); };
  picture.addEventListener("pointermove", (e) => { const box = picture.getBoundingClientRect(); look((e.clientX - box.left) / box.width * hour); });
  picture.addEventListener("pointerleave", () => look(undefined));
  figure.addEventListener("blur", () => look(undefined));
  figure.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: -60, ArrowRight: 60, Home: -hour, End: hour }[e.key];
    if (e.key === "Escape") look(undefined);
    if (!step) return;
    e.preventDefault();
    look(Math.min(hour, Math.max(0, (figure.look ?? hour) + step)));
    set($("#say"), $(".now", figure).textContent);
  });
  return figure;
}

function drawPlot(figure, [title, unit, series], h, lines) {
  const at = h.sampled_at_unix_seconds, end = at.at(-1) ?? 0, value = (v) => (v === null || v === undefined ? "-" : unit === "time" ? span(v) : count(v) + unit);
  let top = 0;
  for (const [name] of series) for (const v of lines[name] ?? []) if (v > top) top = v;
  const scale = top > 0 ? top * 1.08 : 1;
  const paths = series.map(([name]) => {
    let d = "", first = null, x = 0, before = -Infinity;
    (lines[name] ?? []).forEach((v, i) => {
      if (v === null) return;
      x = (hour - (end - at[i])).toFixed(1);
      const y = (plotHigh - v / scale * plotHigh).toFixed(2);
      d += at[i] - before > 3 * h.sample_seconds ? `M${x} ${y}h0` : `L${x} ${y}`; // one alone is a dot
      before = at[i];
      first ??= x;
    });
    return { d, area: first === null || d.lastIndexOf("M") > 0 ? "" : `${d}L${x} ${plotHigh}L${first} ${plotHigh}Z` };
  });
  const svgs = figure.querySelectorAll(".line");
  paths.forEach((p, i) => svgs[i].setAttribute("d", p.d));
  $(".area", figure).setAttribute("d", paths[0].area);
  const cross = $(".cross", figure);
  let i = at.length - 1, when = "";
  if (figure.look !== undefined && at.length) {
    const wanted = end - hour + figure.look;
    i = at.reduce((best, t, k) => (Math.abs(t - wanted) < Math.abs(at[best] - wanted) ? k : best), 0);
    when = new Date(at[i] * 1000).toLocaleTimeString() + ": ";
    cross.setAttribute("x1", hour - (end - at[i]));
    cross.setAttribute("x2", hour - (end - at[i]));
  }
  cross.setAttribute("visibility", when ? "visible" : "hidden");
  const text = at.length ? when + series.map(([name]) => value(lines[name]?.[i])).join(", ") : "no sample yet";
  set($(".now", figure), text);
  set($(".top", figure), top > 0 ? `at most ${value(top)}` : "");
  $("svg", figure).setAttribute("aria-label", `${title} over the last hour: ${text}, at most ${value(top)}`);
}

// ---------------------------------------------------------------- moves, doubts, proxies

const phases = ["planned", "hiding", "copying", "following", "flipped", "reversing", "purging", "done"];
const grown = new Map(); // how far each bar is: it only grows

function drawMoves() {
  const all = state.moves.databases;
  show($("#moves"), all.length > 0);
  keyed($("#moves .body"), all, (d) => d.name, () => el("div", {}, el("h3"), el("p.dim.none"), el("div.going"), el("details", {}, el("summary"), el("div.ended"))), (box, d) => {
    const going = d.moves.filter((m) => !m.ended), ended = d.moves.filter((m) => m.ended).reverse();
    set($("h3", box), all.length > 1 || d.error ? d.name + (d.error ? `: ${d.error}` : "") : "");
    show($("h3", box), $("h3", box).textContent !== "");
    set($(".none", box), going.length ? "" : d.read_at ? "Nothing moves." : "The home shard was not asked yet.");
    keyed($(".going", box), going, (m) => m.id, makeMove, (node, m) => drawMove(node, m, d.name));
    show($("details", box), ended.length > 0);
    set($("summary", box), `${ended.length} that have ended`);
    table($(".ended", box), [
      ["move", (m) => m.id, "n"], ["kind", (m) => m.kind], ["from", (m) => m.source], ["to", (m) => m.target], ["slots", (m) => count(m.slots), "n"], ["end", (m) => m.phase],
      ["rows", (m) => count(m.rows_copied), "n"], ["writes held", (m) => span(m.writes_held_seconds), "n"], ["ended at", (m) => new Date(m.changed_at).toLocaleString()], ["why", (m) => m.said, "wide"],
    ], ended, (m) => m.id, "");
  });
}

function makeMove(m) {
  return el("article.move", {}, el("div.head", {}, el("b.what"), el("span.rows.dim"), el("span.percent")),
    el("progress", { max: "1", "aria-label": `move ${m.id}` }), el("ol.phases", {}, ...phases.map((p) => el("li", {}, p))), el("div.said.dim"));
}

function drawMove(node, m, database) {
  const key = `${database}\n${m.id}\n${m.back}`, giving = m.aborting && ["aborting", "aborted"].includes(m.phase);
  const done = giving ? 0 : Math.max(grown.get(key) ?? 0, m.progress);
  grown.set(key, done);
  node.classList.toggle("warn", m.paused || m.aborting);
  const what = { slots: `${count(m.slots)} slots from ${m.source} to ${m.target}`, join: `shard ${m.target} joins`, leave: `shard ${m.source} leaves` }[m.kind] ?? m.kind;
  set($(".what", node), `${m.id}: ${what}${m.back ? ", ROLLED BACK" : ""}${m.paused ? ", PAUSED" : ""}${m.aborting ? ", BEING GIVEN UP" : ""}${m.wanted ? `, wanted: ${m.wanted}` : ""}`);
  const rows = [];
  if (m.rows_copied || m.rows_estimated) rows.push(`${count(m.rows_copied)}${m.rows_estimated ? ` of about ${count(m.rows_estimated)}` : ""} rows`);
  if (m.rows_per_second) rows.push(`${count(m.rows_per_second)}/s`);
  if (m.eta_seconds) rows.push(`copied in about ${span(m.eta_seconds)}`);
  if (m.writes_held_seconds) rows.push(`writes were held ${span(m.writes_held_seconds)}`);
  set($(".rows", node), rows.join(", "));
  set($(".percent", node), part(done));
  $("progress", node).value = done;
  const at = phases.indexOf(m.phase);
  [...$(".phases", node).children].forEach((li, i) => { show(li, phases[i] !== "reversing" || m.reversible); li.className = i < at ? "past" : i === at ? "now" : ""; });
  set($(".said", node), giving ? `${m.phase}. ${m.said}` : m.said);
}

function drawDoubts() {
  show($("#doubts"), state.doubts.doubts.length > 0 || (state.slots?.databases.length ?? 0) > 0);
  table($("#doubts .body"), [
    ["database", (d) => d.database], ["shard", (d) => d.shard], ["prepared as", (d) => d.name], ["owner", (d) => d.owner], ["for", (d) => span(d.age_seconds), "n"], ["why", (d) => d.reason, "wide"],
  ], state.doubts.doubts, (d) => `${d.shard}\n${d.name}`, "None: every transaction over several shards is finished.");
}

function drawProxies() {
  const rows = state.proxies.databases.flatMap((d) => d.proxies.map((p) => ({ ...p, database: d.name, known: d.epoch, self: d.self })));
  const errors = state.proxies.databases.filter((d) => d.error).map((d) => `${d.name}: ${d.error}`);
  show($("#proxies"), state.proxies.databases.length > 0);
  table($("#proxies .body"), [
    ["database", (p) => p.database], ["proxy", (p) => p.name + (p.name === p.self ? " (this one)" : "")], ["host", (p) => p.host],
    ["state", (p) => (!p.present ? `${signs.bad} gone` : p.behind ? `${signs.warn} behind epoch ${p.known}` : `${signs.good} up to date`)],
    ["epoch", (p) => p.epoch, "n"], ["writes by", (p) => p.writes_epoch, "n"], ["statements by", (p) => p.statements_epoch, "n"], ["told", (p) => span(p.age_seconds) + " ago", "n"],
  ], rows, (p) => `${p.database}\n${p.name}`, errors.join("; ") || "The home shard was not asked yet.");
}

function drawEvents() {
  table($("#events .body"), [
    ["at", (e) => new Date(e.at).toLocaleString()], ["", (e) => signs[e.class]], ["database", (e) => e.database], ["shard", (e) => e.shard], ["what happened", (e) => e.text, "wide"],
  ], state.events.events, (e) => [e.at, e.database, e.shard, e.text].join("\n"), "None since the process started.");
}

// ---------------------------------------------------------------- statements

const statementsShown = 10, queryShown = 400;

function drawStatements() {
  const all = state.statements.databases, by = $("#statements select").value;
  const rows = all.flatMap((d) => d.statements.map((s) => ({ ...s, database: d.name }))).filter((s) => s[by] > 0).sort((a, b) => b[by] - a[by]).slice(0, statementsShown);
  table($("#statements .body"), [
    ["database", (s) => s.database], ["time in all", (s) => span(s.seconds_total), "n"], ["calls", (s) => count(s.calls_total), "n"], ["mean", (s) => span(s.mean_seconds), "n"], ["half", (s) => span(s.p50_seconds), "n"],
    ["95 of 100", (s) => span(s.p95_seconds), "n"], ["99 of 100", (s) => span(s.p99_seconds), "n"], ["rows", (s) => count(s.rows_total), "n"], ["errors", (s) => count(s.errors_total), "n"],
    ["on several shards", (s) => (s.calls_by_shard === null ? "" : part(s.several_total / Math.max(1, s.calls_total))), "n"], ["fingerprint", (s) => s.fingerprint], ["statement", (s) => (s.query.length > queryShown ? s.query.slice(0, queryShown) + " ..." : s.query || "(not understood)"), "wide"],
  ], rows, (s) => `${s.database}\n${s.fingerprint}`, all.some((d) => d.counted_since) ? "None yet." : "They are not counted: limits.statements is 0.");
  const hot = all.flatMap((d) => d.hot_slots.map((h) => ({ ...h, database: d.name }))).sort((a, b) => b.statements_per_second - a.statements_per_second || b.percent - a.percent).slice(0, statementsShown);
  show($("#statements h3.hot"), hot.length > 0);
  table($("#statements div.hot"), [
    ["database", (h) => h.database], ["slot", (h) => h.slot, "n"], ["shard", (h) => h.shard], ["statements", (h) => `about ${count(h.statements_per_second)}/s`, "n"], ["of those with a key", (h) => `${h.percent} %`, "n"],
  ], hot, (h) => `${h.database}\n${h.slot}`, "");
  const errors = all.flatMap((d) => d.errors.map((e) => ({ ...e, database: d.name }))).sort((a, b) => b.count_total - a.count_total).slice(0, statementsShown);
  table($("#statements .errors"), [
    ["database", (e) => e.database], ["SQLSTATE", (e) => e.sqlstate || "others"], ["made by", (e) => e.origin], ["how many", (e) => count(e.count_total), "n"], ["last", (e) => new Date(e.last_at).toLocaleString()], ["text", (e) => e.message, "wide"],
  ], errors, (e) => `${e.database}\n${e.sqlstate}\n${e.origin}`, "None.");
}

// ---------------------------------------------------------------- the slot map

const colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8f8f8f"];

// paint draws one cell of a shard: eight colours, and eight patterns for more.
function paint(c, shard, x, y, size) {
  c.fillStyle = colours[shard % colours.length];
  c.fillRect(x, y, size, size);
  const pattern = Math.floor(shard / colours.length) % 8;
  if (!pattern || size < 6) return;
  const t = Math.max(1, size / 5);
  c.fillStyle = "#000000b0";
  if (pattern === 1) c.fillRect(x + size / 2 - t, y + size / 2 - t, 2 * t, 2 * t);
  if (pattern === 2 || pattern === 5) c.fillRect(x, y + size / 2 - t / 2, size, t);
  if (pattern === 3 || pattern === 5) c.fillRect(x + size / 2 - t / 2, y, t, size);
  if (pattern === 4) for (let k = 0; k < 5; k++) c.fillRect(x + k * size / 5, y + k * size / 5, size / 5, size / 5);
  if (pattern === 6) { c.fillRect(x, y, t, size); c.fillRect(x, y, size, t); }
  if (pattern === 7) { c.fillRect(x + size - t, y, t, size); c.fillRect(x, y, t, size); }
}

function drawSlots() {
  const all = state.slots.databases;
  show($("#slots"), all.length > 0);
  keyed($("#slots .maps"), all, (m) => m.name, makeMap, drawMap);
}

function makeMap(m) {
  const canvas = el("canvas", { tabindex: "0", role: "img" }), said = el("p.said.dim", { "aria-live": "polite" });
  const box = el("div", {}, el("h3"), el("div.map", {}, el("div", {}, canvas, said), el("ul.balance")));
  box.at = -1;
  box.only = "";
  const go = (slot) => { box.at = Math.min(box.map.slots - 1, Math.max(-1, slot)); drawCells(box); };
  canvas.addEventListener("pointermove", (e) => {
    const r = canvas.getBoundingClientRect(), side = box.columns;
    go(Math.floor((e.clientY - r.top) / r.width * side) * side + Math.min(side - 1, Math.floor((e.clientX - r.left) / r.width * side)));
  });
  canvas.addEventListener("pointerleave", () => go(-1));
  canvas.addEventListener("blur", () => go(-1));
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -box.columns, ArrowDown: box.columns, Home: -box.map.slots, End: box.map.slots }[e.key];
    if (!step) return;
    e.preventDefault();
    go(Math.max(0, box.at + step));
  });
  new ResizeObserver(() => drawCells(box)).observe(canvas.parentElement);
  return box;
}

function drawMap(box, m) {
  box.map = m;
  box.columns = m.slots > 1024 ? 64 : Math.ceil(Math.sqrt(m.slots));
  box.owner = new Int16Array(m.slots).fill(-1);
  box.held = new Uint8Array(m.slots);
  box.target = new Map();
  const index = new Map(m.shards.map((s, i) => [s.name, i]));
  for (const r of m.owners) {
    box.owner.fill(index.get(r.shard), r.from, r.to + 1);
    if (r.held) box.held.fill(1, r.from, r.to + 1);
  }
  for (const r of m.moving) for (let s = r.from; s <= r.to; s++) box.target.set(s, r.target);
  const mean = m.slots / Math.max(1, m.shards.filter((s) => s.member).length), most = Math.max(mean, ...m.shards.map((s) => s.slots));
  const worst = Math.max(...m.shards.filter((s) => s.member).map((s) => Math.abs(s.slots / mean - 1)), 0);
  set($("h3", box), `${m.name}: ${count(m.slots)} slots, epoch ${m.epoch}; a mean of ${count(mean)} for a shard, the farthest ${part(worst)} off${box.target.size ? `; ${count(box.target.size)} on their way` : ""}`);
  keyed($(".balance", box), m.shards, (s) => s.name, (s) => {
    const button = el("button", { type: "button", "aria-pressed": "false" }, el("canvas", { "aria-hidden": "true" }), el("span.name"), el("span.bar", { "aria-hidden": "true" }, el("i"), el("u")), el("span.count"));
    button.addEventListener("click", () => { box.only = box.only === s.name ? "" : s.name; drawSlots(); });
    return el("li", {}, button);
  }, (li, s) => {
    const button = li.firstElementChild, [key, name, bar, text] = button.children;
    button.setAttribute("aria-pressed", String(box.only === s.name));
    button.title = `Show only the slots of ${s.name}`;
    key.width = key.height = 18;
    paint(key.getContext("2d"), index.get(s.name), 0, 0, 18);
    set(name, s.name);
    bar.children[0].style.width = `${100 * s.slots / most}%`;
    bar.children[1].style.left = `${100 * mean / most}%`;
    set(text, !s.member && !s.slots ? "has not joined" : `${count(s.slots)} slots${s.slots_held ? `, ${count(s.slots_held)} held` : ""}`);
  });
  drawCells(box);
}

function drawCells(box) {
  const m = box.map, canvas = $("canvas", box), wide = canvas.parentElement.clientWidth;
  if (!m || !wide) return;
  const cell = Math.max(3, Math.floor(wide * devicePixelRatio / box.columns)), rows = Math.ceil(m.slots / box.columns);
  canvas.width = box.columns * cell;
  canvas.height = rows * cell;
  const c = canvas.getContext("2d"), only = m.shards.findIndex((s) => s.name === box.only), gap = cell > 5 ? 1 : 0;
  for (let s = 0; s < m.slots; s++) {
    const x = (s % box.columns) * cell, y = Math.floor(s / box.columns) * cell, size = cell - gap;
    if (box.owner[s] < 0) continue;
    c.globalAlpha = only >= 0 && box.owner[s] !== only ? 0.12 : 1;
    paint(c, box.owner[s], x, y, size);
    if (box.target.has(s)) frame(c, x, y, size, "#ffffff", "#000000");
    if (box.held[s]) cross(c, x, y, size);
  }
  c.globalAlpha = 1;
  if (box.at >= 0) frame(c, (box.at % box.columns) * cell - 1, Math.floor(box.at / box.columns) * cell - 1, cell + 1, "#000000", "#ffffff");
  const s = box.at;
  set($(".said", box), s < 0 ? `${box.target.size ? "Framed: on the way to another shard. " : ""}${box.held.includes(1) ? "Crossed: writes are held. " : ""}Point at a slot, or use the arrow keys; choose a shard to see only its slots.`
    : `Slot ${s}: ${m.shards[box.owner[s]]?.name ?? "nobody"}${box.held[s] ? ", writes held" : ""}${box.target.has(s) ? `, on the way to ${box.target.get(s)}` : ""}`);
  canvas.setAttribute("aria-label", `${m.slots} slots of ${m.name} by their shard`);
}

function frame(c, x, y, size, outer, inner) {
  c.lineWidth = Math.max(1, size / 8);
  c.strokeStyle = outer;
  c.strokeRect(x + c.lineWidth / 2, y + c.lineWidth / 2, size - c.lineWidth, size - c.lineWidth);
  c.strokeStyle = inner;
  c.strokeRect(x + 1.5 * c.lineWidth, y + 1.5 * c.lineWidth, size - 3 * c.lineWidth, size - 3 * c.lineWidth);
}

function cross(c, x, y, size) {
  for (const [colour, wide] of [["#ffffff", size / 3], ["#000000", size / 6]]) {
    c.strokeStyle = colour;
    c.lineWidth = Math.max(1, wide);
    c.beginPath();
    c.moveTo(x, y); c.lineTo(x + size, y + size);
    c.moveTo(x + size, y); c.lineTo(x, y + size);
    c.stroke();
  }
}

// ---------------------------------------------------------------- what is heard

const draw = { status: drawStatus, slots: drawSlots, moves: drawMoves, proxies: drawProxies, doubts: drawDoubts, events: drawEvents, statements: drawStatements };

function hear(part, value) {
  if (part === "history") { takeHistory(value); return; }
  if (part === "status") {
    state.before = state.status;
    state.heard = performance.now();
    if (state.version && state.version !== value.version) state.changed = true;
    state.version ||= value.version;
  }
  state[part] = value;
  draw[part]();
  if (part === "moves") document.dispatchEvent(new Event("moves")); // steer.js
  drawLink();
}

const link = { source: null, timer: 0, opened: false, polled: false, ended: false, denied: false };

function drawLink() {
  const node = $("#link"), quiet = (performance.now() - state.heard) / 1000, stale = link.denied || state.heard > 0 && quiet > (link.polled ? 12 : 3) || link.ended;
  document.body.classList.toggle("stale", stale);
  if (link.denied) {
    node.dataset.state = "stale";
    set(node, "Not let in any more: reload the page to log in");
    return;
  }
  node.dataset.state = !state.heard ? "opening" : stale ? "stale" : link.polled ? "polled" : "live";
  const newer = state.changed ? "; the proxy is another version now: reload the page" : "";
  set(node, (!state.heard ? "Connecting" : stale ? `Stale: ${link.ended ? "the proxy has ended; " : ""}last heard of ${quiet < 60 ? Math.floor(quiet) + " s" : span(quiet)} ago, trying again`
    : link.polled ? "Asked each 5 s: too many pages are open" : `Live, ${new Date(state.status.at).toLocaleTimeString()}`) + newer);
}

async function ask(part) {
  const answer = await fetch(`api/v1/${part}`, { cache: "no-store" });
  link.denied = answer.status === 401 || answer.status === 403;
  if (!answer.ok) throw new Error(`${part}: ${answer.status}`);
  return answer.json();
}

async function loadHistory() {
  try {
    const page = await ask("history");
    state.history = page;
    drawHistory();
  } catch { /* it is asked again with the next connection */ }
}

// poll asks for everything once, where events are refused.
async function poll() {
  try {
    for (const part of ["slots", "moves", "proxies", "doubts", "events", "statements", "status"]) hear(part, await ask(part));
    link.polled = true;
    link.ended = false;
    await loadHistory();
    return 5000;
  } catch {
    return 1000;
  }
}

function connect() {
  clearTimeout(link.timer);
  link.source?.close();
  if (document.hidden) return;
  const source = new EventSource("api/v1/live");
  link.source = source;
  link.opened = false;
  const again = async (end) => {
    if (link.source !== source) return;
    source.close();
    link.source = null;
    link.ended = end;
    const wait = link.opened || end ? 1000 : await poll();
    if (!link.source && !link.denied) link.timer = setTimeout(connect, wait);
    drawLink();
  };
  source.addEventListener("open", () => { link.opened = true; link.polled = false; link.ended = false; loadHistory(); document.dispatchEvent(new Event("opened")); });
  source.addEventListener("end", () => again(true));
  source.addEventListener("error", () => again(link.ended));
  for (const part of [...Object.keys(draw), "history"]) source.addEventListener(part, (e) => hear(part, JSON.parse(e.data)));
}

$("#statements select").addEventListener("change", () => { if (state.statements) drawStatements(); });
$("#history select").addEventListener("change", (e) => { state.picked = e.target.value; drawHistory(); });
document.addEventListener("visibilitychange", connect); // who does not look is not sent anything
setInterval(drawLink, 500);
connect();

export { $, el, set, show, keyed, table, count, span, bytes, state };
