// Send a recording to the server that the page is from, and show its text as it comes. To play it and to move in it is
// `transcript`'s.
(() => {
  const named = (names) => names.split(" ").map((id) => document.getElementById(id));
  const [form, file, record, start, cancel, key, language, task] = named("form file record start cancel key language task");
  const [status, progress, trouble, below, player] = named("status progress trouble below player");
  const [section, facts, notes, files, lines, partial] = named("transcript ran notes files lines partial");
  const links = [...files.querySelectorAll("a")];
  const most = Number(document.body.dataset.mostBytes);
  const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(1) + " MiB";
  let recording = null, running = null, microphone = null, said = [];

  function say(text) { status.textContent = text; }
  function busy() { return running || microphone; }
  function show() {
    for (const one of [file, language, task, key]) if (one) one.disabled = Boolean(busy());
    start.disabled = busy() || !recording;
    record.disabled = Boolean(running);
    record.textContent = microphone ? "Stop recording" : "Record the microphone";
    record.classList.toggle("on", Boolean(microphone));
    progress.hidden = !running;
    const [gone, here] = running ? [start, cancel] : [cancel, start], held = document.activeElement === gone;
    gone.hidden = true;
    here.hidden = false;
    if (held) here.focus();
  }
  function fact(name, value, note) {
    const one = document.createElement("div");
    for (const [kind, text] of [["dt", name], ["dd", value]]) {
      one.append(document.createElement(kind));
      one.lastChild.textContent = text;
    }
    if (note) one.lastChild.append(" ", Object.assign(document.createElement("small"), { textContent: note }));
    return one;
  }
  function save(link, blob, name) {
    if (link.href) URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(blob);
    link.download = name;
  }
  function clear() {
    transcript.clear();
    trouble.textContent = "";
    for (const one of [lines, facts, notes]) one.replaceChildren();
    player.pause();
    for (const one of [section, below, notes, files, partial]) one.hidden = true;
    progress.removeAttribute("value");
  }

  function take(chosen) {
    if (!chosen.length) return;
    if (busy()) {
      trouble.textContent = running ? "Wait for the text, or cancel it." : "Stop the recording first.";
      return;
    }
    keep(chosen[0]);
    run(chosen.length > 1 ? `One recording at a time: this is ${recording.name}.` : "");
  }

  function keep(chosen) {
    recording = chosen;
    if (player.src) URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(recording);
    document.getElementById("lost").hidden = true;
  }

  async function run(note) {
    clear();
    if (!key.hidden && !key.value) {
      show();
      return refuse("The server wants an API key.", key);
    }
    running = new AbortController();
    show();
    trouble.textContent = note;
    const { signal } = running;
    try {
      await transcribe(signal);
    } catch (error) {
      say("");
      refuse(signal.aborted ? "Cancelled." : error.message, error.field);
    } finally {
      running = null;
      show();
    }
  }
  function refuse(text, field) {
    trouble.textContent = text;
    if (field) {
      for (const one of [field, ...field.labels]) one.hidden = false;
      field.disabled = false;
      field.focus();
    }
  }

  async function transcribe(signal) {
    const { name, size } = recording, began = performance.now();
    if (size > most) throw new Error(`${name}: it has ${megabytes(size)}; this server takes up to ${megabytes(most)}`);
    try {
      await recording.slice(0, 1).arrayBuffer();
    } catch {
      throw new Error(`${name}: it can't be read: it is a folder, or is not what it was when it was chosen`);
    }
    say(`${name}: ${megabytes(size)} to send and to read`);
    // A wrong key is found before a recording is sent in vain.
    if (!key.hidden) await ask("v1/models", { signal });
    const body = new FormData();
    body.append("model", "whisper-1");
    body.append("stream", "true");
    if (language && language.value) body.append("language", language.value);
    for (const link of links) body.append("tilescribe_files[]", link.textContent);
    body.append("file", recording, name);
    const answer = await ask(`v1/audio/${task ? task.value : "transcriptions"}`, { method: "POST", body, signal });
    say(`${name}: being decoded`);
    document.getElementById("transcript-h").textContent = name;
    section.hidden = below.hidden = false;
    for await (const event of events(answer.body)) {
      if (event.error) throw new Error(event.error.message);
      if (event.type === "transcript.text.delta") add(event.tilescribe);
      if (event.type === "transcript.text.done") return finish(name, event, performance.now() - began);
    }
  }
  async function ask(path, how) {
    // A header holds bytes: a key in other letters is sent as UTF-8.
    const bytes = String.fromCharCode(...new TextEncoder().encode(key.value));
    const headers = bytes ? { Authorization: `Bearer ${bytes}` } : {};
    let answer;
    try {
      answer = await fetch(path, { ...how, headers });
    } catch (error) {
      if (how.signal.aborted) throw error;
      throw new Error("The server can't be reached, or it ended the connection.");
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => null);
    const later = answer.headers.get("Retry-After"), again = later ? `; try again in ${later} s` : "";
    const error = new Error(((told && told.error && told.error.message) || `The server answers ${answer.status}`) + again);
    if (answer.status === 401) error.field = key;
    throw error;
  }
  async function* events(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      if (done) throw new Error("The connection ended before the text did.");
      const whole = (rest + value).split("\n\n");
      rest = whole.pop();
      for (const one of whole) yield JSON.parse(one.slice("data: ".length));
    }
  }

  function add({ segments, duration }) {
    const words = [];
    for (const { start: from, end, text } of segments) {
      if (!text.trim()) continue;
      const line = document.createElement("li"), at = document.createElement("span");
      const said = document.createElement("p"), word = document.createElement("span");
      at.className = "at";
      at.textContent = transcript.clock(from, 1);
      word.className = "w";
      word.textContent = text.trim();
      at.dataset.t = word.dataset.t = `${from.toFixed(2)} ${end.toFixed(2)}`;
      said.dir = "auto";
      said.append(word);
      line.append(at, said);
      lines.append(line);
      words.push(word);
      progress.value = Math.min(end / duration, 1);
    }
    transcript.take(words);
  }
  function finish(name, { text, tilescribe: ran }, milliseconds) {
    const { coverage, language: spoken, language_probability: sure } = ran, clock = transcript.clock;
    lines.lang = ran.options.task === "translate" ? "en" : spoken;
    facts.append(
      fact("length", clock(ran.duration, 1), `in ${(milliseconds / 1000).toFixed(1)} s`),
      fact("language", new Intl.DisplayNames("en", { type: "language" }).of(spoken),
        sure === null ? "" : `detected, ${Math.round(100 * sure)} %`),
      ...(coverage ? [fact("speech", clock(coverage.speech_seconds, 1), `${clock(coverage.covered_seconds, 1)} with text`)] : []),
      fact("ran", `${ran.model}, ${ran.backend} on ${ran.device}`, ran.device_reason),
    );
    notes.append(...ran.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
    notes.hidden = !ran.notes.length;
    const stem = name.replace(/(.)\.[^.]*$/, "$1");
    for (const link of links) {
      const form = link.textContent;
      save(link, new Blob([ran.files[form]], { type: "application/octet-stream" }), `${stem}.${form}`);
    }
    files.hidden = false;
    say(text ? `${name}: done` : `${name}: done; there is no text`);
  }

  // The text of a microphone, of which the last words may still change.
  function heard(event) {
    if (event.type === "error" && event.error.event_id !== "last") trouble.textContent = event.error.message;
    if (event.type.endsWith("transcription.failed")) trouble.textContent = event.error.message;
    if (event.type.endsWith("transcription.delta")) {
      const { words, partial: rest, language: spoken } = event.tilescribe;
      lines.lang = spoken;
      for (const word of words) {
        said.push(word);
        if (/[.?!。？！]$/.test(word.word)) line();
      }
      hint(said.map(({ word }) => word).join("") + rest);
    }
    if (event.type.endsWith("transcription.completed")) {
      line();
      hint("");
    }
  }
  function line() {
    if (said.length) {
      const end = said.at(-1).end;
      add({ segments: [{ start: said[0].start, end, text: said.map(({ word }) => word).join("") }], duration: end });
    }
    said = [];
  }
  function hint(text) {
    partial.textContent = text.trim();
    partial.hidden = !partial.textContent;
  }

  function end() {
    if (microphone && microphone.state === "recording") microphone.stop();
  }
  async function speak() {
    if (microphone) return end();
    trouble.textContent = "";
    if (!navigator.mediaDevices || !window.MediaRecorder) {
      return refuse("Browsers give the microphone to pages over https and of this machine alone.");
    }
    if (!key.hidden && !key.value) return refuse("The server wants an API key.", key);
    let sound;
    try {
      record.disabled = true;
      sound = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      return refuse(error.name === "NotAllowedError" ? "The microphone is not allowed." : "There is no microphone to record.");
    } finally {
      show();
    }
    if (running) return sound.getTracks().forEach((track) => track.stop());  // a file was dropped in the meantime
    const parts = [], began = performance.now();
    clear();
    said = [];
    microphone = new MediaRecorder(sound);
    const told = setInterval(() => {
      record.textContent = `Stop recording (${transcript.clock((performance.now() - began) / 1000, 0)})`;
    }, 500);
    microphone.ondataavailable = (event) => parts.push(event.data);
    const stopped = new Promise((done) => { microphone.onstop = done; });
    microphone.start();
    say("Recording.");
    show();
    const ended = await begun(sound);
    await stopped;
    const type = microphone.mimeType, kind = (/audio\/(\w+)/.exec(type) || ["", "webm"])[1];
    clearInterval(told);
    record.disabled = true;
    const whole = ended && await ended();
    sound.getTracks().forEach((track) => track.stop());
    microphone = null;
    const file = new File(parts, `recording.${kind}`, { type });
    say("");
    if (!whole) return take([file]);
    keep(file);
    below.hidden = false;
    say("Transcribe decodes the recording once more, as a whole, and has files to save.");
    show();
  }
  // Text comes while it is spoken, where the server and the browser can do that; else once all is said.
  async function begun(sound) {
    if (task && task.value !== "transcriptions") return null;
    try {
      const ended = await live.begin(sound, key.value, language && language.value, heard, () => {
        hint("");
        say("Recording; its text comes when it is stopped.");
      });
      document.getElementById("transcript-h").textContent = "Microphone";
      section.hidden = false;
      return ended;
    } catch {
      say("Recording; its text comes when it is stopped.");
      return null;
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (recording && !busy()) run("");
  });
  file.addEventListener("change", () => {
    take([...file.files]);
    file.value = "";  // else the same file could not be chosen again
  });
  record.addEventListener("click", speak);
  cancel.addEventListener("click", () => running.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) running.abort();
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) document.addEventListener(kind, (event) => {
    event.preventDefault();  // a browser would open what is dropped beside the page's place for it
    document.body.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
  // A page that is left may be kept to go back to: neither the server nor the microphone is to wait for that.
  addEventListener("pagehide", () => {
    if (running) running.abort();
    end();
  });
  addEventListener("beforeunload", (event) => {
    if (busy()) event.preventDefault();
  });
  show();
})();
