// The page at "/": asks the server it came from, and nobody else.
const at = (id) => document.getElementById(id);
const RATE_HZ = 24000; // of pcm
const FFT = 512, HOP = 240, SHOWN_S = 10;
const tell = (text) => { at("status").textContent = text; };
const headers = () => (at("key").value ? { Authorization: `Bearer ${at("key").value}` } : {});

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new Error(told?.error?.message ?? `${answer.status} ${answer.statusText}`);
}

const speech = (voice) => ({
  voice, input: at("text").value, speed: Number(at("speed").value), seed: Number(at("seed").value),
});

function say(body) {
  return ask("/v1/audio/speech", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
}

// -- voices ------------------------------------------------------------------------------------------------------

async function listVoices() {
  const { data } = await (await ask("/v1/audio/voices")).json();
  const chosen = at("voice").value;
  at("voice").replaceChildren(...data.map((one) => new Option(`${one.id} (${one.language})`, one.id)));
  if (data.some((one) => one.id === chosen)) at("voice").value = chosen;
  tell(data.length ? "" : "No voice is published here yet.");
  if (data.length) await showPassport();
}

async function showPassport() {
  const name = at("voice").value;
  const found = await (await ask(`/v1/voices/${encodeURIComponent(name)}`)).json();
  const consent = found.consent;
  const rows = {
    Version: found.version, Published: found.created_at.slice(0, 10), Language: found.language, Base: found.base,
    Licence: found.license, Notice: found.copyright_notice,
    Consent: `given ${consent.granted_on}${consent.expires_on ? `, until ${consent.expires_on}` : ""}`,
    "For": consent.scope.join(", "), Commit: found.commit, "Signed by": found.signed_by, Problem: found.problem,
  };
  for (const [name, value] of Object.entries(found.metrics)) if (value !== null) rows[name] = String(value);
  at("passport").replaceChildren(...Object.entries(rows).filter(([, value]) => value).flatMap(([name, value]) => {
    const pair = [document.createElement("dt"), document.createElement("dd")];
    [pair[0].textContent, pair[1].textContent] = [name, value];
    return pair;
  }));
  at("words").lang = found.language;
  const versions = () => found.versions.map((one) => new Option(one, one));
  at("first").replaceChildren(...versions());
  at("second").replaceChildren(...versions());
  if (found.versions.length > 1) at("second").selectedIndex = 1;
  at("report").hidden = !found.has_report;
  at("report").href = `/v1/voices/${encodeURIComponent(name)}/report`;
}

// -- speaking: sound as it comes, its spectrogram, and the words -----------------------------------------------------

let now = null; // the speech that is being heard

class Heard {
  constructor() {
    this.context = new AudioContext({ sampleRate: RATE_HZ });
    this.starts = null; // context time of the first sample
    this.samples = 0;
    this.odd = new Uint8Array(0);
    this.tail = new Float32Array(0);
    this.words = [];
    at("words").replaceChildren();
    const canvas = at("spectrogram");
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    this.frame = requestAnimationFrame(() => this.light());
  }

  add(bytes) {
    const all = new Uint8Array(this.odd.length + bytes.length);
    all.set(this.odd);
    all.set(bytes, this.odd.length);
    const count = all.length >> 1;
    this.odd = all.slice(2 * count);
    if (!count) return;
    const view = new DataView(all.buffer), wave = new Float32Array(count);
    for (let i = 0; i < count; i++) wave[i] = view.getInt16(2 * i, true) / 32768;
    const buffer = this.context.createBuffer(1, count, RATE_HZ);
    buffer.copyToChannel(wave, 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    this.starts ??= this.context.currentTime + 0.05;
    source.start(Math.max(this.starts + this.samples / RATE_HZ, this.context.currentTime));
    this.draw(wave);
    this.samples += count;
  }

  draw(wave) {
    const all = new Float32Array(this.tail.length + wave.length);
    all.set(this.tail);
    all.set(wave, this.tail.length);
    const first = this.samples - this.tail.length, canvas = at("spectrogram"), pen = canvas.getContext("2d");
    let place = 0;
    for (; place + FFT <= all.length; place += HOP) {
      const column = Math.floor(((first + place) / RATE_HZ % SHOWN_S) / SHOWN_S * canvas.width);
      const levels = spectrum(all.subarray(place, place + FFT));
      const shown = Math.floor(8000 / RATE_HZ * FFT);
      for (let y = 0; y < canvas.height; y++) {
        const level = levels[Math.floor(y / canvas.height * shown)];
        const light = Math.max(0, Math.min(1, (level + 70) / 70));
        pen.fillStyle = `hsl(${260 - 210 * light} 90% ${70 * light}%)`;
        pen.fillRect(column, canvas.height - 1 - y, 2, 1);
      }
    }
    this.tail = all.slice(place);
  }

  sentence(told) {
    for (const one of told.words) {
      const span = document.createElement("span");
      span.textContent = one.word;
      at("words").append(span, " ");
      this.words.push({ ...one, span });
    }
  }

  light() {
    const heard = this.starts === null ? -1 : this.context.currentTime - this.starts;
    for (const one of this.words) one.span.classList.toggle("lit", heard >= one.start && heard < one.end);
    this.frame = requestAnimationFrame(() => this.light());
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.context.close();
  }
}

const WINDOW = Float32Array.from({ length: FFT }, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / FFT));

function spectrum(wave) { // dB of the bins of one frame, by a radix-2 transform
  const re = new Float32Array(FFT), im = new Float32Array(FFT), bits = Math.log2(FFT);
  for (let i = 0; i < FFT; i++) {
    let turned = 0;
    for (let bit = 0; bit < bits; bit++) turned |= ((i >> bit) & 1) << (bits - 1 - bit);
    re[turned] = wave[i] * WINDOW[i];
  }
  for (let size = 2; size <= FFT; size *= 2) {
    for (let start = 0; start < FFT; start += size) {
      for (let k = 0; k < size / 2; k++) {
        const angle = -2 * Math.PI * k / size, cos = Math.cos(angle), sin = Math.sin(angle);
        const a = start + k, b = a + size / 2;
        const r = re[b] * cos - im[b] * sin, j = re[b] * sin + im[b] * cos;
        [re[b], im[b], re[a], im[a]] = [re[a] - r, im[a] - j, re[a] + r, im[a] + j];
      }
    }
  }
  return Float32Array.from({ length: FFT / 2 }, (_, i) => 10 * Math.log10((re[i] ** 2 + im[i] ** 2) / FFT + 1e-9));
}

function stop() {
  now?.socket.close();
  now?.heard.close();
  now = null;
  at("stop").disabled = true;
}

function speak(event) {
  event.preventDefault();
  stop();
  const { input, ...manner } = speech(at("voice").value);
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/audio/stream`);
  const heard = new Heard(), clock = performance.now();
  socket.binaryType = "arraybuffer";
  now = { socket, heard };
  at("stop").disabled = false;
  tell("Speaking …");
  socket.onopen = () => {
    const key = at("key").value ? { api_key: at("key").value } : {};
    socket.send(JSON.stringify({ type: "start", response_format: "pcm", ...manner, ...key }));
    socket.send(JSON.stringify({ type: "text", text: input }));
    socket.send(JSON.stringify({ type: "end" }));
  };
  let first = null;
  socket.onmessage = ({ data }) => {
    if (now?.socket !== socket) return;
    if (typeof data !== "string") {
      first ??= performance.now() - clock;
      heard.add(new Uint8Array(data));
      return;
    }
    const told = JSON.parse(data);
    if (told.type === "sentence") heard.sentence(told);
    if (told.type === "error") tell(told.error.message);
    if (told.type === "done") {
      tell(`${told.duration_s.toFixed(1)} s of speech; the first sound came after ${Math.round(first)} ms.`);
    }
  };
  socket.onerror = () => tell("The server cannot be reached.");
}

// -- comparing ---------------------------------------------------------------------------------------------------

let blind = [];

async function compare(event) {
  event.preventDefault();
  at("verdict").textContent = "";
  tell("Both versions speak …");
  try {
    blind = [at("first").value, at("second").value];
    if (crypto.getRandomValues(new Uint8Array(1))[0] & 1) blind.reverse();
    for (const [index, player] of ["a", "b"].entries()) {
      const answer = await say({ ...speech(`${at("voice").value}@${blind[index]}`), response_format: "mp3" });
      URL.revokeObjectURL(at(player).src);
      at(player).src = URL.createObjectURL(await answer.blob());
    }
    at("blind").hidden = false;
    tell("Listen to A and B, then choose.");
  } catch (error) { tell(error.message); }
}

function choose(index) {
  at("verdict").textContent = `You chose ${blind[index]}; the other one was ${blind[1 - index]}.`;
}

async function copyCurl() {
  const body = JSON.stringify(speech(at("voice").value)).replaceAll("'", "'\\''");
  const key = at("key").value ? " -H \"Authorization: Bearer $VOXLINE_KEY\"" : "";
  const line = `curl ${location.origin}/v1/audio/speech --json '${body}'${key} -o speech.mp3`;
  try {
    await navigator.clipboard.writeText(line);
    tell("Copied.");
  } catch { tell(line); }
}

const told = (work) => async (event) => { try { await work(event); } catch (error) { tell(error.message); } };
at("ask").addEventListener("submit", speak);
at("stop").addEventListener("click", () => { stop(); tell("Stopped."); });
at("copy").addEventListener("click", copyCurl);
at("voice").addEventListener("change", told(showPassport));
at("key").addEventListener("change", told(listVoices));
at("compare").addEventListener("submit", compare);
at("choose-a").addEventListener("click", () => choose(0));
at("choose-b").addEventListener("click", () => choose(1));
told(listVoices)();
