// Steering moves from the page, for who may: the page shows a plan before it is
// begun, says what will happen before each order, and then what came of it.

import { $, el, set, show, keyed, table, count, span, bytes, state } from "./dashboard.js";

const steer = { session: null, asked: 0, plan: null, wanted: null, busy: false };
const bar = $("#moves .steer"), planner = $("#planner"), confirm = $("#confirm");

// ask reads who we are. The token dies with the process, so it is read anew with each connection.
async function ask() {
  const asked = ++steer.asked;
  try {
    const answer = await fetch("api/v1/session", { cache: "no-store" });
    const session = answer.ok ? await answer.json() : null;
    if (asked === steer.asked) steer.session = session;
  } catch {
    if (asked === steer.asked) steer.session = null;
  }
  draw();
}

// order sends one, and returns the answer or throws what was said against it.
async function order(name, body) {
  const answer = await fetch(`api/v1/moves/${name}`, { method: "POST", cache: "no-store", headers: { "Content-Type": "application/json", "X-CSRF-Token": steer.session?.csrf_token ?? "" }, body: JSON.stringify(body) });
  let said = null;
  try { said = await answer.json(); } catch { /* it is no JSON when something before the handler has answered */ }
  if (answer.ok) return said;
  if (answer.status === 401 || answer.status === 403) ask();
  const why = said?.message ? [said.message, said.detail, said.hint].filter(Boolean).join(". ") : `the proxy has answered ${answer.status}`;
  throw new Error(why);
}

function say(text, bad) {
  const node = $("#moves .answer");
  node.className = "answer " + (bad ? "bad" : "good");
  set($(".sign", node), text ? (bad ? "\u2715" : "\u2713") : "");
  set($(".text", node), text);
  show(node, text !== "");
}

const database = () => state.moves?.databases.find((d) => d.name === $("select", bar).value) ?? state.moves?.databases[0];
const shardsOf = (name) => state.slots?.databases.find((d) => d.name === name)?.shards ?? [];
const moves = (p) => `${count(p.moves.length)} ${p.moves.length === 1 ? "move" : "moves"}`;
const slots = (m) => `${count(m.slots)} ${m.slots === 1 ? "slot" : "slots"}`;

// confirms asks whether an order is meant; what is the sentence that says what will happen.
function confirms(title, what, button, name, body) {
  steer.wanted = { name, body };
  set($("h2", confirm), title);
  set($(".what", confirm), what);
  set($(".do", confirm), button);
  set($(".error", confirm), "");
  show($(".error", confirm), false);
  confirm.showModal();
  $(".cancel", confirm).focus(); // Enter alone does nothing
}

const orders = {
  pause: (d) => confirms(`Pause the moves of ${d.name}?`, "No move comes to a further phase: no writes are held, and no other move begins. A copy that is under way goes on to its end, and changes are followed.", "Pause", "pause", { database: d.name }),
  resume: (d) => confirms(`Let the moves of ${d.name} go on?`, "Moves that are paused come to their next phases: where slots change their shard, their writes wait for about a second.", "Resume", "resume", { database: d.name }),
  abort: (d) => confirms(`Give up the moves of ${d.name}?`, "Moves whose slots have not changed their shard yet are given up: rows stay where they were, and what was copied is deleted. A move whose slots have changed their shard goes on to its end.", "Give up", "abort", { database: d.name }),
  rollback: (d, m) => confirms(`Roll back move ${m.id} of ${d.name}?`, `${slots(m)} return from ${m.target} to ${m.source}, with all that was written since. Their writes wait for about a second.`, "Roll back", "rollback", { database: d.name, ids: [m.id] }),
  complete: (d, m) => confirms(`Complete move ${m.id} of ${d.name}?`, `${m.source} deletes the rows of ${slots(m)}, which are on ${m.target}. It cannot be rolled back any more.`, "Complete", "complete", { database: d.name, ids: [m.id] }),
};

$(".do", confirm).addEventListener("click", async () => {
  if (steer.busy || !steer.wanted) return;
  busy(true);
  try {
    const said = await order(steer.wanted.name, steer.wanted.body);
    confirm.close();
    say(steer.wanted.name === "start" ? `Begun: ${moves(said)} with ${slots(said)} in ${said.database}` : `${said.database}: ${said.said}`, false);
  } catch (e) {
    set($(".error", confirm), e.message);
    show($(".error", confirm), true);
  }
  busy(false);
});
for (const dialog of [confirm, planner]) {
  $(".cancel", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("cancel", (e) => { if (steer.busy) e.preventDefault(); });
}

function busy(on) {
  steer.busy = on;
  for (const b of document.querySelectorAll("dialog button")) b.disabled = on;
  if (!on) $(".start", planner).disabled = !startable();
}

// ---------------------------------------------------------------- planning

const kinds = {
  even: { fields: [], body: () => ({}) },
  add: { fields: ["shard"], body: () => ({ add: [value("shard")] }) },
  remove: { fields: ["shard"], body: () => ({ remove: [value("shard")] }) },
  tenant: { fields: ["tenant", "shard"], body: () => ({ tenant: [value("tenant")], to: value("shard") }) },
  slots: { fields: ["slots", "shard"], body: () => ({ slots: value("slots"), to: value("shard") }) },
};
const field = (name) => $(`[name="${name}"]`, planner), value = (name) => field(name).value.trim();
const startable = () => steer.plan !== null && steer.plan.answer.plan !== "" && !steer.plan.answer.blocked;

function drawForm() {
  const kind = value("kind"), fields = kinds[kind].fields, spread = !fields.includes("tenant") && !fields.includes("slots");
  for (const name of ["shard", "tenant", "slots"]) show(field(name).closest("label"), fields.includes(name));
  show(field("by").closest("label"), spread);
  const names = fields.includes("shard") ? shardsOf(steer.database).filter((s) => s.member === (kind !== "add")).map((s) => s.name) : [], select = field("shard");
  if (names.join("\n") !== [...select.options].map((o) => o.value).join("\n")) select.replaceChildren(...names.map((n) => el("option", { value: n }, n)));
  set($(".which", planner), kind === "add" ? "Shard that joins" : kind === "remove" ? "Shard that leaves" : "To shard");
  set($(".note", planner), kind === "add" && !names.length ? "Every shard of the configuration has joined. Name the new one there first, last in the list, and start every proxy with it." : "");
  steer.plan = null; // another question
  drawPlan();
}

function openPlanner(d) {
  steer.database = d.name;
  set($("h2", planner), `Move slots of ${d.name}`);
  fault("");
  drawForm();
  planner.showModal();
}

function fault(text) {
  set($(".error", planner), text);
  show($(".error", planner), text !== "");
}

$("form", planner).addEventListener("change", drawForm);
$("form", planner).addEventListener("input", () => { if (steer.plan) { steer.plan = null; drawPlan(); } });
$("form", planner).addEventListener("submit", async (e) => {
  e.preventDefault();
  if (steer.busy) return;
  const kind = value("kind"), body = { database: steer.database, ...kinds[kind].body(), reversible: field("reversible").checked };
  if (!body.slots && !body.tenant) body.by = value("by");
  busy(true);
  fault("");
  set($(".note", planner), "All shards are asked ...");
  try {
    steer.plan = { body, answer: await order("plan", body) };
  } catch (error) {
    steer.plan = null;
    fault(error.message);
  }
  set($(".note", planner), "");
  busy(false);
  drawPlan();
});

function drawPlan() {
  const box = $(".plan", planner), p = steer.plan?.answer;
  show(box, Boolean(p));
  $(".start", planner).disabled = !startable();
  if (!p) return;
  set($(".summary", box), p.moves.length === 0 ? "Nothing to do: no slot would move." : `${moves(p)}: ${slots(p)} with about ${count(p.rows)} rows, ${bytes(p.bytes)}; carried in about ${span(p.estimated_seconds)}.`);
  show($(".blockers", box), p.blocked);
  keyed($(".blockers ul", box), p.blockers.map((b, i) => ({ ...b, i })), (b) => b.i, () => el("li"), (li, b) => set(li, `${[b.shard, b.table].filter(Boolean).join(", ")}${b.shard || b.table ? ": " : ""}${b.reason}${b.hint ? `. ${b.hint}` : ""}`));
  table($(".shards", box), [
    ["shard", (s) => s.name + (s.state === "stays" ? "" : ` (${s.state})`)], ["slots now", (s) => count(s.slots_now), "n"], ["afterwards", (s) => count(s.slots_afterwards), "n"],
    ["size now", (s) => bytes(s.bytes_now), "n"], ["afterwards", (s) => bytes(s.bytes_afterwards), "n"],
  ], p.shards, (s) => s.name, "");
  set($("pre", box), p.text);
}

$(".start", planner).addEventListener("click", () => {
  const { body, answer: p } = steer.plan, joins = p.moves.filter((m) => m.kind === "join").map((m) => m.target), leaves = p.moves.filter((m) => m.kind === "leave").map((m) => m.source);
  planner.close();
  confirms(`Begin this plan for ${p.database}?`, [
    joins.length ? `${joins.join(", ")} joins: it is given roles, the schema and the rows of reference tables first.` : "",
    p.slots ? `${slots(p)} with about ${count(p.rows)} rows change their shard, move by move, while applications run. The writes of a move's slots wait for about a second where it changes; reads never wait.` : "",
    leaves.length ? `${leaves.join(", ")} leaves, and may be taken out of the configuration then.` : "",
    body.reversible ? "Each move can be rolled back until it is completed; until then its source keeps the rows." : "When the slots have changed their shard, the source deletes the rows; moves that have not come so far can be given up.",
  ].filter(Boolean).join(" "), "Begin", "start", { ...body, plan: p.plan });
});

// ---------------------------------------------------------------- what is there to be ordered

bar.addEventListener("click", (e) => {
  const name = e.target.closest("button")?.dataset.order, d = database();
  if (!name || !d) return;
  if (name === "plan") openPlanner(d);
  else orders[name](d);
});
$("select", bar).addEventListener("change", draw);

function draw() {
  const all = state.moves?.databases ?? [], may = Boolean(steer.session?.may_order);
  show(bar, may && all.length > 0);
  if (!may) {
    for (const node of document.querySelectorAll(".move .orders")) node.remove();
    return;
  }
  const select = $("select", bar), names = all.map((d) => d.name);
  if (names.join("\n") !== [...select.options].map((o) => o.value).join("\n")) select.replaceChildren(...names.map((n) => el("option", { value: n }, n)));
  show(select.closest("label"), names.length > 1);
  set($(".who", bar), `as ${steer.session.user}`);
  const going = (database()?.moves ?? []).filter((m) => !m.ended), shown = {
    plan: true, pause: going.some((m) => !m.paused), resume: going.some((m) => m.paused), abort: going.some((m) => !m.aborting && ["planned", "hiding", "copying", "following"].includes(m.phase)),
  };
  for (const b of bar.querySelectorAll("button")) show(b, shown[b.dataset.order]);
  for (const box of $("#moves .body").children) {
    const d = all.find((one) => one.name === box.dataset.key);
    for (const node of box.querySelectorAll(".going > .move")) drawMove(node, d, d?.moves.find((m) => String(m.id) === node.dataset.key));
  }
}

// drawMove gives a reversible move the buttons of its own.
function drawMove(node, d, m) {
  let box = $(".orders", node);
  if (!m?.reversible || m.phase !== "reversing" || m.wanted) { box?.remove(); return; }
  if (box) return;
  box = el("div.orders");
  for (const [name, text] of [["rollback", "Roll back"], ["complete", "Complete"]]) {
    const button = el("button", { type: "button", "data-order": name, "aria-label": `${text} move ${m.id}` }, `${text} ...`);
    button.addEventListener("click", () => {
      const now = state.moves.databases.find((one) => one.name === d.name)?.moves.find((one) => one.id === m.id);
      if (now) orders[name](d, now);
    });
    box.append(button);
  }
  node.append(box);
}

document.addEventListener("moves", draw);
document.addEventListener("opened", ask);
ask();
