"use strict";
// The utterances: search, filter, order, and rows made as they are asked for. All else on the page works without it.
(() => {
  const holder = document.getElementById("data"), list = document.getElementById("list");
  if (!holder || !list) return;
  const { names, utterances } = JSON.parse(holder.textContent);
  const form = document.getElementById("controls"), more = document.getElementById("more");
  const found = document.getElementById("found"), page = 20, context = 4, paper = 60;
  const language = list.querySelector("table.aligned"), rtl = language ? language.dir : "", lang = language ? language.lang : "";
  let chosen = [], shown = 0, printing = false;

  function element(tag, text, attributes) {
    const made = document.createElement(tag);
    if (text !== undefined && text !== "") made.textContent = text;
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    return made;
  }
  const count = (n) => n.toLocaleString("en-GB");
  const wide = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;
  function width(text) {
    let sum = 0;
    for (const letter of text) sum += wide.test(letter) ? 2 : 1;
    return sum;
  }
  // Errors by backend, and by how many each backend that differs is worse than the cpu.
  for (const one of utterances) {
    one.errors = {};
    one.change = {};
    one.g.forEach(([who, errors], place) => {
      for (const backend of who) {
        one.errors[backend] = errors;
        if (place > 0) one.change[backend] = errors - one.g[0][1];
      }
    });
  }

  function text(one) {
    if (one.text === undefined) {
      const words = one.g.map((row) => row[2].filter((cell) => typeof cell === "string").map((cell) => cell.slice(1)).join(" "));
      one.text = [one.i, one.s || "", one.r, one.w.filter(Boolean).join(" "), ...words, ...one.t.map((t) => t[1])].join("\n").toLowerCase();
    }
    return one.text;
  }
  const kinds = {
    worse: (one, b) => one.change[b] > 0,
    better: (one, b) => one.change[b] < 0,
    equal: (one, b) => one.change[b] === 0,
    broken: (one, b) => one.k !== undefined && one.k[b] !== undefined,
  };
  function has(one, backend, sign) {
    const row = one.g.find(([who]) => who.includes(backend));
    return row !== undefined && row[2].some((cell) => typeof cell === "string" && cell[0] === sign);
  }
  const magnitude = (one, backends) => {
    let most = -1;
    for (const b of backends) if (one.change[b] !== undefined) most = Math.max(most, Math.abs(one.change[b]));
    return most;
  };
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  function choose() {
    const wanted = form.elements.search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const only = form.elements.backend.value, kind = form.elements.kind.value, order = form.elements.order.value;
    const backends = only === "" ? names.map((_, i) => i).filter((i) => names[i] !== "cpu") : [Number(only)];
    const test = kind === "" ? () => true : kinds[kind] || ((one, b) => has(one, b, kind));
    chosen = utterances.filter((one) =>
      backends.some((b) => (one.change[b] !== undefined) && test(one, b)) && wanted.every((word) => text(one).includes(word)));
    const most = (one) => Math.max(...backends.map((b) => (one.errors[b] === undefined ? -1 : one.errors[b])));
    const by = {
      // For any backend the data's own order, which puts the legacy kernels last.
      change: only === "" ? null : (a, b) => magnitude(b, backends) - magnitude(a, backends),
      errors: (a, b) => most(b) - most(a),
      id: (a, b) => compare(a.i, b.i),
      speaker: (a, b) => compare(a.s || "", b.s || "") || compare(a.i, b.i),
      length: (a, b) => (b.d || 0) - (a.d || 0) || b.n - a.n,
    }[order];
    if (by) chosen.sort(by);
    list.replaceChildren();
    shown = 0;
    show();
  }

  function show() {
    const only = form.elements.backend.value === "" ? null : Number(form.elements.backend.value);
    const part = document.createDocumentFragment();
    for (const one of chosen.slice(shown, shown + page)) part.append(utterance(one, only));
    list.append(part);
    shown = Math.min(shown + page, chosen.length);
    const left = chosen.length - shown;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(page, left)} more`;
    found.textContent = chosen.length === 0 ? "None fits." : `${count(shown)} of ${count(chosen.length)} shown` +
      (chosen.length < utterances.length ? `; ${count(utterances.length)} differ in all.` : ".");
  }

  function utterance(one, only) {
    const made = element("article", "", { class: "utterance" });
    const head = element("h3", one.i + " "), about = [];
    if (one.s !== undefined) about.push(`speaker ${one.s}`);
    if (one.d !== undefined) about.push(`${one.d.toFixed(1)}\u202fs`);
    about.push(`${one.n} words`);
    head.append(element("small", about.join(", ")));
    made.append(head);
    const broken = Object.entries(one.k || {}).filter(([b]) => only === null || Number(b) === only);
    if (broken.length) {
      const told = element("p", "Broken: ", { class: "kinds" }), strips = one.p || {};
      broken.forEach(([b, k], place) => {
        const what = `${names[b]} (${k.join(", ")})`;
        told.append(place ? "; " : "", strips[b] ? element("a", what, { href: strips[b] }) : what);
      });
      made.append(told);
    }
    if (one.a) made.append(element("audio", "", { controls: "", preload: "none", src: one.a, "aria-label": `Recording of ${one.i}` }));
    const rows = one.g.filter(([who], place) => only === null || place === 0 || who.includes(only));
    made.append(aligned(one, rows));
    const raw = element("details"), texts = element("dl", "", { class: "raw" });
    raw.append(element("summary", "As transcribed"));
    raw.addEventListener("toggle", () => {
      if (texts.childElementCount) return;
      for (const [who, words] of [["reference", one.r], ...one.t.map(([b, t]) => [b.map((i) => names[i]).join(", "), t])]) {
        const pair = element("div");
        pair.append(element("dt", who), element("dd", words || "(nothing)", { dir: "auto" }));
        texts.append(pair);
      }
    });
    raw.append(texts);
    made.append(raw);
    return made;
  }

  // Cells of a row: its runs of columns that are as the reference, spelt out.
  function spell(one, runs) {
    const cells = [];
    for (const run of runs) {
      if (typeof run === "string") cells.push([run[0], run.slice(1)]);
      else for (let i = 0; i < run; i++) cells.push(["=", one.w[cells.length] || ""]);
    }
    return cells;
  }

  function aligned(one, rows) {
    const box = element("div", "", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Transcripts of ${one.i}` });
    const spelt = rows.map((row) => spell(one, row[2]));
    // Places between words where no row that is shown has a word are left out.
    const there = one.w.map((_, i) => i).filter((i) => one.w[i] !== 0 || spelt.some((cells) => cells[i][1] !== ""));
    const kept = fold(there, (i) => spelt.some((cells) => cells[i][0] !== "="));
    const room = printing ? paper : (list.clientWidth - (list.clientWidth < 610 ? 132 : 194)) / letter - 1;
    let line = [], used = 0;
    const lines = [];
    for (const i of kept) {
      const size = i === null ? 1.5 : Math.max(width(one.w[i] || ""), ...spelt.map((c) => width(c[i][1]) + (c[i][0] === "+" ? 1 : 0))) + 0.5;
      if (line.length && used + size > room) { lines.push(line); line = []; used = 0; }
      line.push(i);
      used += size;
    }
    if (line.length) lines.push(line);
    lines.forEach((places, number) => {
      const table = element("table", "", { class: "aligned" });
      if (lang) table.lang = lang;
      if (rtl) table.dir = rtl;
      if (number === 0) table.append(element("caption", `Transcripts of ${one.i}, word over word`));
      table.append(row("reference", number === 0 ? "errors" : "", places.map((i) => element("td", i === null ? "…" : one.w[i] || "")), "reference"));
      rows.forEach(([who, errors], r) => {
        const label = who.map((b) => names[b]).join(", ");
        table.append(row(label, number === 0 ? String(errors) : "", places.map((i) => (i === null ? element("td", "…") : cell(one, i, spelt[r][i])))));
      });
      box.append(table);
    });
    if (!lines.length) box.append(element("p", "No words once normalised.", { class: "absent" }));
    return box;
  }
  // The columns near a difference; null stands for a stretch that is left out.
  function fold(places, differs) {
    const near = new Set();
    places.forEach((i, at) => {
      if (differs(i)) for (let k = at - context; k <= at + context; k++) near.add(k);
    });
    if (!near.size) return places;
    const folded = [];
    places.forEach((i, at) => {
      if (near.has(at)) folded.push(i);
      else if (folded.length === 0 || folded[folded.length - 1] !== null) folded.push(null);
    });
    return folded;
  }
  function cell(one, i, [sign, word]) {
    if (sign === "=") return element("td", word);
    const made = element("td");
    const [tag, title] = { "~": ["b", "substituted"], "-": ["del", "deleted"], "+": ["ins", "inserted"] }[sign];
    made.append(element(tag, sign === "-" ? one.w[i] : word, { title }));
    return made;
  }
  function row(label, errors, cells, kind) {
    const made = element("tr", "", kind ? { class: kind } : {});
    made.append(element("th", label, { scope: "row" }), element("td", errors, { class: "n" }), ...cells);
    return made;
  }

  // One letter of the fixed-width face, which the lines are measured in.
  const probe = element("table", "", { class: "aligned", style: "position:absolute;visibility:hidden" });
  const letters = element("span", "0".repeat(50));
  probe.append(letters);
  list.append(probe);
  const letter = letters.getBoundingClientRect().width / 50 || 8;

  let waiting = 0;
  const later = () => { clearTimeout(waiting); waiting = setTimeout(choose, 120); };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.elements.search.addEventListener("input", later);
  form.addEventListener("change", choose);
  more.addEventListener("click", show);
  // Paper is narrower than most screens: what is shown is laid out anew for it, and back.
  function lay(forPaper) {
    printing = forPaper;
    const only = form.elements.backend.value === "" ? null : Number(form.elements.backend.value);
    list.replaceChildren(...chosen.slice(0, shown).map((one) => utterance(one, only)));
  }
  addEventListener("beforeprint", () => lay(true));
  addEventListener("afterprint", () => lay(false));
  let before = list.clientWidth;
  addEventListener("resize", () => { if (list.clientWidth !== before) { before = list.clientWidth; later(); } });
  for (const link of document.querySelectorAll("a[data-find]")) {
    link.addEventListener("click", () => {
      for (const name of ["backend", "kind"]) form.elements[name].value = "";
      form.elements.search.value = link.dataset.find;
      choose();
    });
  }
  choose();
})();
