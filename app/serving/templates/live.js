// What a microphone hears becomes text while it comes: OpenAI's Realtime API, in a browser.
const live = (() => {
  const RATE = 24000;

  function base64(samples) {  // little-endian, as all that browsers run on
    return btoa(String.fromCharCode(...new Uint8Array(samples.buffer)));
  }

  // Sound at 24 kHz, or at its own rate where a browser takes it at no other.
  async function listening(sound) {
    const made = (options) => {
      const context = new AudioContext(options);
      return { context, source: context.createMediaStreamSource(sound) };
    };
    let heard;
    try {
      heard = made({ sampleRate: RATE });
    } catch {
      heard = made({});
    }
    await heard.context.audioWorklet.addModule("microphone.js");
    const options = { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" };
    const node = new AudioWorkletNode(heard.context, "microphone", options);
    heard.source.connect(node);
    return { context: heard.context, port: node.port };
  }

  function connected(key) {
    const place = new URL("v1/realtime?intent=transcription", location);
    place.protocol = place.protocol.replace("http", "ws");
    // Scripts can send no header with it.
    const socket = new WebSocket(place, key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"]);
    return new Promise((done, failed) => {
      socket.onopen = () => done(socket);
      socket.onerror = () => failed(new Error("The server takes no sound while it comes."));
    });
  }

  // Begin; gives a function that ends it, once all that was said has become text. `told` gets each event of the server,
  // `lost` is called where the connection ends before that.
  async function begin(sound, key, language, told, lost) {
    const socket = await connected(key);
    let microphone;
    try {
      microphone = await listening(sound);
    } catch (error) {
      socket.close();
      throw error;
    }
    const { context, port } = microphone, send = (event) => socket.send(JSON.stringify(event));
    const input = { format: { type: "audio/pcm", rate: context.sampleRate }, turn_detection: { type: "server_vad" } };
    if (language) input.transcription = { language };
    send({ type: "session.update", session: { type: "transcription", audio: { input }, include: ["tilescribe.partial"] } });
    let updates = 0, finished;
    const end = new Promise((done) => { finished = done; });
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "session.updated" && ++updates === 2) return finished(true);
      told(event);
    };
    socket.onclose = () => {
      finished(false);
      if (updates < 2) lost();
    };
    port.onmessage = ({ data: samples }) => {
      if (socket.readyState !== WebSocket.OPEN) return;
      if (samples) return send({ type: "input_audio_buffer.append", audio: base64(samples) });
      send({ type: "input_audio_buffer.commit", event_id: "last" });
      send({ type: "session.update", session: {} });  // answered once that is done
    };
    return async () => {
      port.postMessage("end");
      const whole = await end;
      context.close();
      socket.close();
      return whole;
    };
  }

  return { begin };
})();
