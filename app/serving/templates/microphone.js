// Gives what a microphone hears, as samples of 16 bits, a tenth of a second at once.
registerProcessor("microphone", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate / 10));
    this.filled = 0;
    this.port.onmessage = () => {  // the end
      this.give();
      this.port.postMessage(null);
      this.ended = true;
    };
  }
  give() {
    if (this.filled) this.port.postMessage(this.block.slice(0, this.filled));
    this.filled = 0;
  }
  process([[samples]]) {
    for (const sample of samples || []) {
      this.block[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.filled === this.block.length) this.give();
    }
    return !this.ended;
  }
});
