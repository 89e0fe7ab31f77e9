"use strict";
// The dashboard: asks the gateway for its figures every two seconds and shows them. Whatever comes from outside (names
// of tenants, models and processes) is put into the page as text, never as HTML.
(() => {
  const EVERY = 2000, FLEET_EVERY = 4000, SLOWER = 10000; // milliseconds from look to look; the last in trouble
  const SPAN = 900; // seconds that the charts go back at most; of a young gateway fewer, so that there is something to see
  const SPANS = [[120, [2, 1, 0]], [300, [5, 3, 1, 0]], [SPAN, [15, 10, 5, 0]]]; // seconds, and the minutes that are marked
  const MOST_ROWS = 12, MOST_MODELS = 30, MOST_WORKERS = 200;
  const SVG = "http://www.w3.org/2000/svg";
  const $ = (id) => document.getElementById(id);

  // -- numbers as people read them; the same spellings as on the terminal --------------------------------------------

  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  const short = (value) => (value < 9.95 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(0));

  function amount(value) {
    if (!isNumber(value)) return "?";
    if (value < 0) return "-" + amount(-value);
    for (const unit of ["", "k", "M", "B", "T"]) {
      const text = short(value);
      if (Number(text) < 1000) return text + unit;
      value /= 1000;
    }
    return "a lot";
  }

  function count(value) {
    if (!isNumber(value)) return "?";
    return value < 1e5 ? Math.round(value).toLocaleString("en-US") : amount(value);
  }

  function money(value) {
    if (!isNumber(value)) return "?";
    if (value === 0) return "$0";
    if (value < 0.01) return value < 0.0001 ? "<$.0001" : "$" + value.toPrecision(1);
    return value < 9.995 ? "$" + value.toFixed(2) : "$" + amount(value < 1000 ? Math.round(value) : value);
  }

  function seconds(value) {
    if (!isNumber(value)) return "–";
    if (value === 0) return "0 s";
    if (value < 0.0995) return (value * 1000).toFixed(value < 0.00995 ? 1 : 0) + " ms";
    if (value < 9.95) return value.toFixed(value < 0.995 ? 2 : 1) + " s";
    return value < 99.5 ? value.toFixed(0) + " s" : span(value);
  }

  function span(value) {
    if (!isNumber(value)) return "?";
    const whole = Math.round(Math.max(0, value)), two = (part) => String(part).padStart(2, "0");
    if (whole < 3600) return Math.floor(whole / 60) + ":" + two(whole % 60);
    const minutes = Math.round(value / 60);
    if (minutes < 1440) return Math.floor(minutes / 60) + "h" + two(minutes % 60);
    const hours = Math.round(value / 3600);
    return Math.floor(hours / 24) + "d " + (hours % 24) + "h";
  }

  const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

  // -- the page ------------------------------------------------------------------------------------------------------

  /** Make an element; children that are no nodes become text. */
  function make(tag, attributes, ...children) {
    return fill(document.createElement(tag), attributes, children);
  }

  function draw(tag, attributes, ...children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
  }

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, String(value));
    for (const child of children) node.append(child instanceof Node ? child : String(child));
    return node;
  }

  function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  function bar(css, share) {
    const made = make("i", css ? { class: css } : {});
    made.style.width = (100 * Math.min(1, Math.max(0, share || 0))).toFixed(2) + "%";
    return made;
  }

  const list = (value) => (Array.isArray(value) ? value : []);
  const entries = (value) => (value && typeof value === "object" ? Object.entries(value) : []);
  const total = (told, name) => (isNumber((told.totals || {})[name]) ? told.totals[name] : 0);

  function table(where, caption, heads, rows, css) {
    const body = rows.map((row) =>
      make("tr", {}, ...row.map((cell, at) =>
        make(at ? "td" : "th", at ? {} : { scope: "row", title: cell }, cell))));
    const shown = make("table", css ? { class: css } : {}, make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...body));
    const box = where.querySelector(".scroll");
    if (box) box.replaceChildren(shown); // the box stays, and with it where somebody has scrolled to
    else where.replaceChildren(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, shown));
  }

  const empty = (where, text) => where.replaceChildren(make("p", { class: "empty" }, text));

  // -- what stands at the top ----------------------------------------------------------------------------------------

  function showNow(told) {
    const health = told.health || {};
    say($("score"), isNumber(health.score) ? String(Math.round(health.score)) : "–");
    say($("status"), String(health.status || "unknown"));
    document.querySelector(".health").className = "health " +
      (["ok", "degraded", "unhealthy"].includes(health.status) ? health.status : "");
    $("reasons").replaceChildren(...list(health.reasons).map((reason) => make("li", {}, reason)));
    say($("about"), `${told.state || "running"} for ${span(told.uptime)} · budget: ${told.budget || "memory"}`);
    document.title = (told.state === "paused" ? "paused · " : "") +
      `${amount(told.queued)} waiting · ratelimited-llm gateway`;
    showState(told.state);
    const latency = told.latency || {}, wait = told.queue_wait || {};
    const cap = isNumber(told.max_queue) ? ` of ${amount(told.max_queue)}` : "";
    const sum = (name) => list(told.pools).reduce((all, pool) => all + (isNumber(pool[name]) ? pool[name] : 0), 0);
    const figures = [
      [count(told.queued), "waiting" + cap],
      [count(told.in_flight), isNumber(told.streams) && told.streams ? `in flight, ${count(told.streams)} streams` : "in flight"],
      [amount(sum("requests_per_minute")), "requests/min"],
      [amount(sum("tokens_per_minute")), "tokens/min"],
      [seconds(latency.p50), "latency, median"],
      [seconds(latency.p95), "latency, 95 %"],
      [seconds(wait.p95), "queue wait, 95 %"],
      [count(total(told, "answered") + total(told, "replayed")), "answered"],
      [count(total(told, "failed")), "failed", total(told, "failed") ? "bad" : ""],
      [count(total(told, "refused")), "429s", total(told, "refused") ? "hm" : ""],
      [isNumber((told.totals || {}).spent) ? money(told.totals.spent) : "–", "spent"],
    ];
    $("figures").replaceChildren(...figures.map(([value, what, css]) =>
      make("div", {}, make("dd", css ? { class: css } : {}, value), make("dt", {}, what))));
  }

  function showState(state) {
    const paused = state === "paused", ending = state === "draining";
    $("orders").hidden = false;
    // Whoever has pressed a button with the keyboard is not to lose the place when it gives way to its opposite.
    const held = document.activeElement === $("pause") || document.activeElement === $("resume");
    $("pause").hidden = paused;
    $("resume").hidden = !paused;
    if (held) (paused ? $("resume") : $("pause")).focus();
    const words = paused ? "Paused: nothing is sent until somebody resumes it."
      : ending ? "Ending: no new requests are taken." : Date.now() < newsUntil ? news : "";
    say($("notice"), words);
    $("notice").hidden = !words;
  }

  // -- limits --------------------------------------------------------------------------------------------------------

  function showPools(told) {
    const pools = list(told.pools).slice(0, MOST_ROWS);
    if (!pools.length) return empty($("pools"), "No requests yet, so no limits are known.");
    $("pools").replaceChildren(...pools.map(pool));
  }

  function pool(facts) {
    const name = [facts.provider, facts.family].filter(Boolean).join(" · ");
    const state = [`${count(facts.in_flight)} in flight, ${count(facts.queued)} waiting`];
    if (facts.paused > 0) state.push(`held back ${span(facts.paused)} by a 429`);
    if (facts.queued > 0 && isNumber(facts.eta)) state.push(`${span(facts.eta)} left`);
    const limits = list(facts.limits);
    return make("div", { class: "pool" }, make("h3", {}, name || "?", " ", make("span", {}, state.join(", "))),
      ...(limits.length ? limits.map(gauge) : [make("p", { class: "empty" },
        `${amount(facts.requests_per_minute)} requests/min; its limits are not known yet`)]));
  }

  function gauge(limit) {
    const share = limit.limit > 0 ? limit.used / limit.limit : 0;
    const said = `${amount(limit.used)} of ${amount(limit.limit)}${limit.period > 60 ? " a day" : ""}`;
    const words = make("span", { class: "said" }, said);
    if (limit.binds) words.append(make("span", { class: "tag" }, "binds"));
    return make("div", { class: "gauge" + (limit.binds ? " binds" : "") },
      make("span", { class: "name" }, limit.dimension),
      make("div", { class: "track", role: "img", "aria-label": `${limit.dimension}: ${Math.round(100 * share)} % used` },
        bar("", share)),
      words);
  }

  // -- who waits -----------------------------------------------------------------------------------------------------

  function showOpen(where, counted, none) {
    const rows = entries(counted).map(([name, each]) =>
      ({ name, queued: isNumber(each && each.queued) ? each.queued : 0, flying: isNumber(each && each.in_flight) ? each.in_flight : 0 }));
    if (where === $("by-tenant")) rows.sort((one, other) => other.queued + other.flying - one.queued - one.flying);
    const most = Math.max(1, ...rows.map((row) => row.queued + row.flying));
    const shown = rows.slice(0, MOST_ROWS).map((row) =>
      make("div", { class: "open" }, make("span", { class: "name", title: row.name }, row.name || "(none)"),
        make("div", { class: "stack", "aria-hidden": "true" }, bar("flying", row.flying / most), bar("waiting", row.queued / most)),
        make("span", { class: "said" }, amount(row.flying), make("span", { class: "heard" }, " in flight"), " + ",
          amount(row.queued), make("span", { class: "heard" }, " waiting"))));
    if (rows.length > MOST_ROWS) shown.push(make("p", { class: "empty" }, `and ${count(rows.length - MOST_ROWS)} more`));
    if (shown.length) where.replaceChildren(...shown);
    else empty(where, none);
  }

  // -- charts --------------------------------------------------------------------------------------------------------

  const HEIGHT = 168, TOP = 14, BOTTOM = 24, WIDE = 1000;
  const slices = new Map(); // what the gateway counted, by the moment of the slice
  let samples = []; // what this page has seen

  function remember(told) {
    const now = told.at;
    for (const slice of list(told.history)) if (isNumber(slice.at)) slices.set(slice.at, slice);
    for (const at of slices.keys()) if (at < now - SPAN - 60) slices.delete(at);
    samples.push({ at: now, queued: told.queued, flying: told.in_flight, p50: (told.latency || {}).p50, p95: (told.latency || {}).p95 });
    samples = samples.filter((sample) => sample.at >= now - SPAN && sample.at <= now);
  }

  /** What this page has seen, and before that what the gateway remembers of it. */
  function lately(now) {
    const first = samples.length ? samples[0].at : now;
    const before = [...slices.values()].filter((slice) => slice.at < first && slice.at >= now - SPAN && isNumber(slice.queued));
    before.sort((one, other) => one.at - other.at);
    return [...before.map((slice) => ({ at: slice.at, queued: slice.queued, flying: slice.in_flight, p50: slice.p50, p95: slice.p95 })),
      ...samples];
  }

  /** Sums over the slices of the 60 s before each moment, ten seconds apart; nothing before the first slice. */
  function perMinute(now, name) {
    const known = [...slices.values()].sort((one, other) => one.at - other.at);
    if (!known.length) return [];
    const points = [];
    for (let at = now; at >= Math.max(now - SPAN, known[0].at); at -= 10) {
      let sum = 0;
      for (const slice of known) if (slice.at > at - 60 && slice.at <= at) sum += slice[name] || 0;
      points.unshift([at, sum]);
    }
    return points;
  }

  function ticks(high) {
    if (!(high > 0)) return [0, 1];
    const rough = high / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => power * factor).find((each) => each >= rough * (1 - 1e-9));
    return Array.from({ length: Math.ceil(high / step - 1e-9) + 1 }, (_, index) => index * step);
  }

  /** How far back there is something to show: [seconds, minutes that are marked]. */
  function reachOf(now) {
    const first = Math.min(now, ...slices.keys(), ...samples.slice(0, 1).map((sample) => sample.at));
    return SPANS.find(([reach]) => now - first <= reach) || SPANS[SPANS.length - 1];
  }

  /** One picture: lines of [moment, value], and stacked columns [moment, width, value, css]. */
  function chart(where, now, { lines = [], columns = [], up = amount, whole = true, words }) {
    const feet = new Map();
    for (const [at, , value] of columns) feet.set(at, (feet.get(at) || 0) + value);
    const highest = Math.max(0, ...feet.values(), ...lines.flatMap((line) => line.points.map((point) => point[1])).filter(isNumber));
    let marks = ticks(highest);
    if (whole && marks.length > 1 && marks[1] < 1) marks = [0, 1];
    const high = marks[marks.length - 1];
    const [reach, minutesMarked] = reachOf(now);
    const x = (at) => Math.min(100, Math.max(0, (100 * (at - now + reach)) / reach));
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / high);
    const svg = draw("svg", { class: "picture", role: "img", "aria-label": words, width: "100%", height: HEIGHT });
    for (const value of marks) {
      svg.append(draw("line", { class: value ? "grid" : "axis", x1: 0, x2: "100%", y1: y(value), y2: y(value) }));
      svg.append(draw("text", { class: "tick", x: -8, y: y(value), dy: "0.32em", "text-anchor": "end" }, value ? up(value) : "0"));
    }
    for (const minutes of minutesMarked) {
      const place = x(now - 60 * minutes), anchor = place < 1 ? "start" : minutes ? "middle" : "end";
      svg.append(draw("text", { class: "tick", x: place + "%", y: HEIGHT - 6, "text-anchor": anchor },
        minutes ? `−${minutes} min` : "now"));
    }
    const shapes = draw("svg", { width: "100%", height: HEIGHT, viewBox: `0 0 ${WIDE} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const line of lines) shapes.append(...path(line, (at) => (x(at) * WIDE) / 100, y));
    svg.append(shapes, ...stacked(columns, x, y), ...labels(lines, y));
    where.replaceChildren(svg);
  }

  function path(line, x, y) {
    const runs = [[]];
    for (const [at, value] of line.points) {
      if (!isNumber(value)) runs.push([]);
      else runs[runs.length - 1].push([x(at).toFixed(1), y(value).toFixed(1)]);
    }
    const drawn = runs.filter((run) => run.length > 1);
    if (!drawn.length) return [];
    const steps = drawn.map((run) => "M" + run.map((point) => point.join(" ")).join("L"));
    const made = [draw("path", { class: line.css || "curve", d: steps.join("") })];
    if (line.area) {
      const floor = HEIGHT - BOTTOM;
      const below = drawn.map((run, at) => `${steps[at]}L${run[run.length - 1][0]} ${floor}L${run[0][0]} ${floor}Z`);
      made.unshift(draw("path", { class: "area", d: below.join("") }));
    }
    return made;
  }

  function stacked(columns, x, y) {
    const feet = new Map();
    return columns.filter((column) => column[2] > 0).map(([at, width, value, css]) => {
      const foot = feet.get(at) || 0;
      feet.set(at, foot + value);
      return draw("rect", {
        class: "bar " + css, x: x(at).toFixed(2) + "%", width: Math.max(0.15, (x(at + width) - x(at)) * 0.9).toFixed(2) + "%",
        y: y(foot + value).toFixed(1), height: (y(foot) - y(foot + value)).toFixed(1),
      }, draw("title", {}, `${count(value)} ${css} at ${clock(at)}`));
    });
  }

  function labels(lines, y) {
    return lines.filter((line) => line.label && line.points.length).map((line) => {
      const at = y(line.points[line.points.length - 1][1]) - 5;
      return draw("text", { class: "label", x: "100%", y: at > 10 ? at : at + 19, "text-anchor": "end" }, line.label);
    });
  }

  function showCharts(told) {
    const now = told.at;
    const requests = perMinute(now, "requests");
    const limit = list(told.pools).flatMap((each) => list(each.limits)).filter((each) => each.dimension === "rpm")
      .reduce((sum, each) => sum + each.limit, 0);
    const busiest = Math.max(1, ...requests.map((point) => point[1]));
    const lines = [{ points: requests, area: true }];
    // A limit far above everything would press the curve flat.
    if (limit > 0 && limit < 4 * busiest) lines.push({ points: [[now - SPAN, limit], [now, limit]], css: "limit", label: `limit ${amount(limit)}` });
    chart($("chart-requests"), now, { lines, words: `Requests per minute; at most ${amount(busiest)}` });

    const seen = lately(now);
    const of = (name) => seen.map((sample) => [sample.at, sample[name]]);
    chart($("chart-queue"), now, {
      lines: [{ points: of("queued"), area: true }, { points: of("flying"), css: "second" }],
      words: `Open requests; now ${count(told.queued)} waiting and ${count(told.in_flight)} in flight`,
    });
    chart($("chart-latency"), now, {
      lines: [{ points: of("p50") }, { points: of("p95"), css: "second" }], up: (value) => seconds(value).replace(/\.0+ |(\.\d)0 /, "$1 "), whole: false,
      words: `Latency; now ${seconds((told.latency || {}).p50)} in the median`,
    });
    chart($("chart-trouble"), now, { columns: troubles(now), words: `Trouble per 15 s; since the start ${count(total(told, "refused"))} 429s and ${count(total(told, "failed"))} failures` });
  }

  function troubles(now) {
    const width = 15, bins = new Map();
    for (const slice of slices.values()) {
      const at = Math.floor(slice.at / width) * width;
      if (at < now - SPAN) continue;
      const bin = bins.get(at) || { refused: 0, failed: 0, rejected: 0 };
      for (const name of Object.keys(bin)) bin[name] += slice[name] || 0;
      bins.set(at, bin);
    }
    return [...bins].flatMap(([at, bin]) => Object.entries(bin).map(([css, value]) => [at, width, value, css]));
  }

  // -- tables --------------------------------------------------------------------------------------------------------

  function showTables(told) {
    const models = list(told.models).slice(0, MOST_MODELS);
    if (models.length) {
      table($("models"), "Models", ["model", "answered", "failed", "tokens in", "out", "cost", "latency"], models.map((each) =>
        [String(each.model), count(each.answered), count(each.failed), amount(each.input_tokens), amount(each.output_tokens),
          isNumber(each.spent) ? money(each.spent) : "–", seconds(each.latency)]));
    } else empty($("models"), "No model has been asked yet.");
    const errors = list(told.errors).slice(0, MOST_ROWS);
    $("errors-section").hidden = !errors.length;
    if (errors.length) table($("errors"), "Errors", ["what", "times"], errors.map((each) => [String(each.text), count(each.count)]), "words");
  }

  function showFleet(told) {
    const workers = list(told && told.workers);
    $("fleet-section").hidden = !told;
    if (!told) return;
    const orders = [];
    if (told.paused) orders.push("paused by an operator");
    const lowered = entries(told.lowered).map(([name, value]) => `${amount(value)} ${name}`);
    if (lowered.length) orders.push("at most " + lowered.join(", ") + " by an operator");
    say($("fleet-orders"), orders.join("; "));
    $("fleet-orders").hidden = !orders.length;
    if (!workers.length) return empty($("fleet"), "Nobody has reported in the last minute.");
    table($("fleet"), "Processes that share the budget",
      ["process", "role", "in flight", "waiting", "rpm", "wait p50", "p95", "429s", "failed", "cost", "last seen"],
      workers.slice(0, MOST_WORKERS).map((each) => {
        const known = (value, words) => (isNumber(value) ? words(value) : "–");
        return [String(each.name), each.role || "–", known(each.in_flight, amount), known(each.queued, amount), known(each.rpm, amount),
          seconds(each.wait_p50), seconds(each.wait_p95), known(each.refused, amount), known(each.failed, amount),
          known(each.spent, money), seconds(each.seen)];
      }));
  }

  // -- talking to the gateway ----------------------------------------------------------------------------------------

  let token = "";
  try { token = sessionStorage.getItem("ratelimited-llm-token") || ""; } catch { /* no storage: asked again */ }
  let latest = null, hasFleet = true, fleetAt = 0, timer = 0, asking = false, news = "", newsUntil = 0;

  class Refused extends Error {}

  async function ask(path, body) {
    const headers = { "x-ratelimited-dashboard": "1" };
    if (token) headers["x-ratelimited-token"] = token;
    if (body !== undefined) headers["content-type"] = "application/json";
    const answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST", headers, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(8000),
    });
    if (answer.status === 401 || answer.status === 403) throw new Refused(String(answer.status));
    if (answer.status === 404) return null;
    if (!answer.ok) throw new Error("it answers " + answer.status);
    return answer.json();
  }

  function complain(words) {
    say($("trouble"), words);
    $("trouble").hidden = !words;
  }

  async function look() {
    clearTimeout(timer);
    if (asking) return;
    asking = true;
    let next = EVERY;
    try {
      const told = await ask("v1/queue/stats");
      if (!told) throw new Error("there is no v1/queue/stats");
      latest = told;
      $("sign").hidden = true;
      $("all").hidden = false;
      complain("");
      show(told);
      await lookAtFleet(told);
    } catch (error) {
      next = error instanceof Refused ? null : SLOWER;
      if (error instanceof Refused) signIn();
      else complain(`The gateway does not answer${latest ? ` since ${clock(latest.at)}` : ""}; trying again. (${error.message})`);
    } finally {
      asking = false;
    }
    if (next !== null && !document.hidden) timer = setTimeout(look, next);
  }

  function show(told) {
    remember(told);
    showNow(told);
    showPools(told);
    showOpen($("by-priority"), told.by_priority, "No requests are open.");
    showOpen($("by-tenant"), told.by_tenant, "No requests are open.");
    showCharts(told);
    showTables(told);
  }

  async function lookAtFleet(told) {
    if (!hasFleet || told.budget === "memory" || Date.now() - fleetAt < FLEET_EVERY) return;
    fleetAt = Date.now();
    try {
      const fleet = await ask("dashboard/fleet");
      hasFleet = fleet !== null;
      showFleet(fleet);
    } catch (error) {
      if (error instanceof Refused) throw error;
      $("fleet-section").hidden = false;
      empty($("fleet"), "The shared budget cannot be reached at the moment.");
    }
  }

  function signIn() {
    $("about").textContent = "locked";
    complain(token ? "The gateway does not take this token." : "");
    for (const id of ["orders", "all", "notice"]) $(id).hidden = true;
    const first = $("sign").hidden;
    $("sign").hidden = false;
    if (first || token) $("token").focus();
  }

  $("sign").addEventListener("submit", (event) => {
    event.preventDefault();
    token = $("token").value.trim();
    $("token").value = "";
    try { sessionStorage.setItem("ratelimited-llm-token", token); } catch { /* asked again after a reload */ }
    look();
  });

  async function order(name, body) {
    const buttons = document.querySelectorAll("#orders button");
    const held = document.activeElement;
    buttons.forEach((button) => { button.disabled = true; });
    try {
      const done = await ask("dashboard/" + name, body || {});
      complain(done ? "" : "This gateway does not take such orders.");
      return done;
    } catch (error) {
      if (error instanceof Refused) signIn();
      else complain(`That did not work: ${error.message}`);
      return null;
    } finally {
      buttons.forEach((button) => { button.disabled = false; });
      if (held && held.isConnected) held.focus();
      look();
    }
  }

  $("pause").addEventListener("click", () => order("pause"));
  $("resume").addEventListener("click", () => order("resume"));
  $("cancel").addEventListener("click", () => {
    const tenants = entries(latest && latest.by_tenant).filter(([name, each]) => name && each && each.queued > 0);
    $("whose").replaceChildren(make("option", { value: "" }, `everybody's (${count(latest ? latest.queued : 0)})`),
      ...tenants.slice(0, 500).map(([name, each]) => make("option", { value: name }, `${name} (${count(each.queued)})`)));
    $("ask").returnValue = "no";
    $("ask").showModal();
  });
  $("ask").addEventListener("close", async () => {
    if ($("ask").returnValue !== "yes") return;
    const whose = $("whose").value;
    const done = await order("cancel", whose ? { tenant: whose } : {});
    if (!done) return;
    news = isNumber(done.cancelled) ? `${count(done.cancelled)} waiting requests cancelled.` : "Cancelled.";
    newsUntil = Date.now() + 10000;
    if (latest) showState(latest.state);
  });

  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  look();
})();
