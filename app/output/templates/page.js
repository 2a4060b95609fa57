"use strict";
// Play from a word, follow what plays, move by the keyboard. All that a written page says is there without it; a page
// whose text is still to come tells it of words with take(), and forgets them with clear().
const transcript = (() => {
  const player = document.getElementById("player"), now = document.getElementById("now");
  const times = (element) => element.dataset.t.split(" ").map(Number);
  const items = [], spans = [];
  const strips = [...document.querySelectorAll(".strip")];
  const rows = strips.map((strip) => strip.dataset.row.split(" ").map(Number));
  const mark = document.createElement("i"), head = document.createElement("i");
  mark.className = "mark";
  head.className = "head";
  let at = 0, playing = -1;

  function clock(seconds, digits = 2) {
    const parts = 10 ** digits, whole = Math.round(seconds * parts), minutes = Math.floor(whole / (60 * parts));
    const rest = ((whole % (60 * parts)) / parts).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
    const hours = Math.floor(minutes / 60);
    return (hours ? hours + ":" + String(minutes % 60).padStart(2, "0") : minutes) + ":" + rest;
  }
  // The last one that begins at a time or before it.
  function before(list, time) {
    let low = 0, high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle][0] <= time + 1e-6) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
  function put(what, start, end) {
    if (!strips.length) return;
    const row = Math.max(0, before(rows, start)), [from, to] = rows[row];
    const left = Math.min(1, (start - from) / (to - from)), right = Math.min(1, (end - from) / (to - from));
    what.style.left = 100 * left + "%";
    what.style.width = 100 * (right - left) + "%";
    if (what.parentNode !== strips[row]) strips[row].append(what);
  }
  function show(element) {
    const [start, end, probability] = times(element);
    put(mark, start, end);
    const sure = probability === undefined ? "" : ", " + probability + " %";
    now.textContent = clock(start) + " to " + clock(end) + sure;
    element.title = now.textContent;
  }
  function play(time) {
    if (!player) return;
    player.currentTime = time;
    player.play().catch(() => {});
  }
  function go(place) {
    if (!items.length) return;
    items[at].tabIndex = -1;
    at = Math.min(Math.max(place, 0), items.length - 1);
    items[at].tabIndex = 0;
    items[at].focus();
  }
  const segment = (item) => item.closest("li");
  function vertical(step) {
    let place = at;
    while (items[place] && segment(items[place]) === segment(items[at])) place += step;
    if (!items[place]) return place;
    while (items[place - 1] && segment(items[place - 1]) === segment(items[place])) place -= 1;
    return place;
  }

  function take(words) {
    for (const item of words) {
      item.tabIndex = items.length ? -1 : 0;
      item.setAttribute("role", "button");
      items.push(item);
      spans.push(times(item));
    }
  }
  function clear() {
    items.length = spans.length = at = 0;
    playing = -1;
    now.textContent = "";
  }
  take(document.querySelectorAll(".w"));
  document.addEventListener("focusin", (event) => {
    if (event.target.dataset && event.target.dataset.t) show(event.target);
  });
  document.addEventListener("click", (event) => {
    const one = event.target.closest("[data-t]"), strip = event.target.closest(".strip");
    if (one && String(getSelection()) === "") {
      const place = items.indexOf(one);
      if (place >= 0) go(place);
      else show(one);
      play(times(one)[0]);
    } else if (!one && strip) {
      const box = strip.getBoundingClientRect(), [from, to] = strip.dataset.row.split(" ").map(Number);
      play(from + ((event.clientX - box.left) / box.width) * (to - from));
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !event.target.matches(".w")) return;
    const moves = {
      ArrowRight: () => go(at + 1),
      ArrowLeft: () => go(at - 1),
      ArrowDown: () => go(vertical(1)),
      ArrowUp: () => go(vertical(-1)),
      Home: () => go(0),
      End: () => go(items.length - 1),
      Enter: () => play(spans[at][0]),
      " ": () => (player && !player.paused && playing === at ? player.pause() : play(spans[at][0])),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });

  if (!player) return { take, clear, clock };
  function follow() {
    const time = player.currentTime, place = before(spans, time);
    if (place !== playing && items[playing]) items[playing].classList.remove("on");
    if (items[place]) items[place].classList.toggle("on", time < spans[place][1]);
    playing = place;
    put(head, time, time);
  }
  function frame() {
    const old = head.parentNode;
    follow();
    if (old && old !== head.parentNode) head.parentNode.scrollIntoView({ block: "nearest" });
    if (!player.paused) requestAnimationFrame(frame);
  }
  player.addEventListener("play", () => requestAnimationFrame(frame));
  player.addEventListener("seeked", follow);
  const lost = document.getElementById("lost"), choose = document.getElementById("choose");
  player.addEventListener("error", () => { lost.hidden = false; });
  if (player.error) lost.hidden = false;
  if (choose) choose.addEventListener("change", () => {
    lost.hidden = true;
    player.src = URL.createObjectURL(choose.files[0]);
  });
  return { take, clear, clock };
})();
