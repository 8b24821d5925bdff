// Plays LL-HLS of fragmented MP4 and of MPEG-TS in hls.js, Shaka and Chromium's own player, all at once, through a
// publisher that dies and returns, and tells each one's delay to live and its stalls. Waits for what must happen, not
// for a time; SECONDS more on each side of the reconnect are for measuring, and end with a table (docs/players.md).
// Usage: live.cjs WEIR_BINARY DIRECTORY_FOR_SCREENSHOTS [SECONDS]
'use strict';

const { spawn, execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { withBrowser } = require('./weir.cjs');

const KEY = 'browser-test';
const FLAGS = [
  '--autoplay-policy=no-user-gesture-required', '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows', '--disable-background-timer-throttling',
];
const MODULES = (process.env.NODE_PATH || '').split(path.delimiter)[0];
const SCRIPTS = {
  '/hls.js': path.join(MODULES, 'hls.js/dist/hls.min.js'),
  '/shaka.js': path.join(MODULES, 'shaka-player/dist/shaka-player.compiled.js'),
};
const PUBLISHED = {
  mp4: ['-f', 'mp4', '-movflags', 'empty_moov+default_base_moof', '-frag_duration', '100000'],
  frames: ['-f', 'mp4', '-movflags', 'empty_moov+default_base_moof+frag_every_frame'],
  ts: ['-f', 'mpegts', '-flush_packets', '1', '-pes_payload_size', '0'],
};
// Each picture carries its number modulo 2^10: a square for each bit, white or black, from the left.
const BITS = 10;
const SQUARE = 16;
const RATE = 25;
// Seconds after which the pictures begin anew; no player is as far behind.
const ROUND = 30;
const NUMBERED = [...Array(BITS).keys()].map((bit) => {
  const box = `drawbox=x=${bit * SQUARE}:y=0:w=${SQUARE}:h=${SQUARE}:t=fill`;
  return `${box}:c=black,${box}:c=white:enable=gt(bitand(n\\,${1 << bit})\\,0)`;
}).join(',');
const PLAYERS = { mp4: ['hls.js', 'shaka', 'native'], frames: ['hls.js'], ts: ['hls.js', 'shaka', 'native'] };
// How long a busy machine may take until all players have begun, and until they are behind the reconnect.
const LIMIT_MS = 60_000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function publish(base, source, name) {
  return spawn('ffmpeg', [
    '-nostdin', '-v', 'error', '-re', '-i', source, '-c', 'copy', ...PUBLISHED[name],
    '-method', 'PUT', '-headers', `Authorization: Bearer ${KEY}\r\n`, `${base}/live/${name}`,
  ], { stdio: 'ignore' });
}

// The players' pages: plain files, from another origin than the streams.
async function servePages() {
  const server = http.createServer((request, response) => {
    const script = SCRIPTS[request.url];
    response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
    const page = '<!doctype html><video muted autoplay playsinline width=320></video>';
    response.end(script ? fs.readFileSync(script) : page + Object.keys(SCRIPTS).map((s) => `<script src="${s}"></script>`).join(''));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}

// In the page: begins to play, and notes twenty times a second whether the picture moves, and which one it is.
async function begin([player, url, bits, square]) {
  const video = document.querySelector('video');
  const seen = { errors: [], notes: [], samples: [] };
  window.seen = seen;
  const context = new OffscreenCanvas(bits, 1).getContext('2d', { willReadFrequently: true });
  const picture = () => {
    context.drawImage(video, 0, 0, bits * square, square, 0, 0, bits, 1);
    const { data } = context.getImageData(0, 0, bits, 1);
    return [...Array(bits).keys()].reduce((number, bit) => number + (data[bit * 4] > 127) * 2 ** bit, 0);
  };
  if (player === 'hls.js') {
    const hls = new window.Hls({ lowLatencyMode: true });
    hls.on(window.Hls.Events.ERROR, (_, data) => {
      (data.fatal ? seen.errors : seen.notes).push(`${data.details} ${data.error?.message ?? ''}`);
    });
    hls.loadSource(url);
    hls.attachMedia(video);
  } else if (player === 'shaka') {
    window.shaka.polyfill.installAll();
    const shaka = new window.shaka.Player();
    await shaka.attach(video);
    shaka.configure({ streaming: { lowLatencyMode: true } });
    // 1001: a part that was announced and did not come after all, which is 404; it goes on.
    shaka.addEventListener('error', (event) => (event.detail.severity === 2 && event.detail.code !== 1001 ? seen.errors : seen.notes).push(`shaka ${event.detail.code} ${event.detail.message}`));
    await shaka.load(url).catch((error) => seen.errors.push(`shaka load ${error.code} ${error.message}`));
  } else {
    video.crossOrigin = 'anonymous';
    video.src = url;
    video.addEventListener('error', () => seen.errors.push(`video ${video.error.code} ${video.error.message}`));
  }
  video.play().catch((error) => seen.notes.push(String(error)));
  setInterval(() => {
    const ahead = video.buffered.length ? video.buffered.end(video.buffered.length - 1) - video.currentTime : 0;
    const frames = video.getVideoPlaybackQuality().totalVideoFrames;
    seen.samples.push({ now: Date.now(), time: video.currentTime, picture: picture(), ahead, frames });
  }, 50);
}

// When the first picture of a stream was received, and the first one behind each break.
function begun(playlist) {
  const tag = '#EXT-X-PROGRAM-DATE-TIME:';
  const runs = playlist.split('#EXT-X-DISCONTINUITY\n');
  return runs.map((run) => Date.parse(run.split('\n').find((line) => line.startsWith(tag)).slice(tag.length)));
}

// Of the samples of one player: frames, when it began, delay to live (median before and after the reconnect), stalls of
// over 0.3 s. The delay is how long ago the picture that is shown was received.
function judge({ samples, before }, [first, second]) {
  const start = samples.findIndex(({ time }, n) => n > 0 && time > samples[n - 1].time);
  if (start < 0) return { frames: samples.at(-1)?.frames ?? 0, started: null, stalls: [] };
  const stalls = [];
  let since = samples[start].now;
  for (let n = start + 1; n < samples.length; n++) {
    const { now, time } = samples[n];
    if (time !== samples[n - 1].time) {
      if (now - since > 300) stalls.push([since - samples[0].now, now - since].map((ms) => Math.round(ms / 100) / 10));
      since = now;
    }
  }
  const median = (values) => Math.round(values.sort((a, b) => a - b)[values.length >> 1] * 100) / 100;
  const delay = (part, received) =>
    median(part.map(({ now, picture }) => (((now - received) / 1000 - picture / RATE) % ROUND + ROUND) % ROUND));
  const shown = samples.slice(start);
  const isAfter = ({ time }) => time > before.until;
  return {
    frames: samples.at(-1).frames,
    started: (samples[start].now - samples[0].now) / 1000,
    delay: [delay(shown.filter((sample) => !isAfter(sample)), first), delay(shown.filter(isAfter), second)],
    ahead: median(shown.filter(isAfter).map(({ ahead }) => ahead)),
    stalls,
    still: (samples.at(-1).now - since) / 1000,
  };
}

// Delays to live before and after the reconnect, and every stall, as Markdown.
function table(results) {
  const stall = ([at, length]) => `${length} (at ${at})`;
  const rows = results.map(({ player, name, started, delay, ahead, stalls }) =>
    [player, name, started, ...delay, ahead, stalls.map(stall).join(', ') || 'none'].join(' | '));
  const head = 'player | stream | started after, s | delay before, s | delay after, s | buffered, s | stalls of over 0.3 s, in s';
  return [head, '--- | --- | ---: | ---: | ---: | ---: | ---', ...rows].map((row) => `| ${row} |`).join('\n');
}

// A playlist once it is so.
async function playlist(base, name, is) {
  for (let n = 0; n < 200; n++) {
    const answer = await fetch(`${base}/live/${name}/index.m3u8`);
    const text = answer.ok ? await answer.text() : '';
    if (is(text)) return text;
    await sleep(200);
  }
  throw new Error(`no playlist of ${name}`);
}

// Waits until something holds in every page; gives the pages in which it did not.
async function until(running, holds) {
  const deadline = Date.now() + LIMIT_MS;
  let pages = running.map(({ page }) => page);
  while (pages.length > 0 && Date.now() < deadline) {
    const is = await Promise.all(pages.map((page) => page.evaluate(holds)));
    pages = pages.filter((_, n) => !is[n]);
    await sleep(200);
  }
  return pages;
}

async function play(browser, pages, base, source, seconds, shots) {
  const names = Object.keys(PUBLISHED);
  const publishers = Object.fromEntries(names.map((name) => [name, publish(base, source, name)]));
  const received = {};
  try {
    // Chromium's own player begins three segments behind the end, and gives up where these are not there yet.
    await Promise.all(names.map(async (name) => {
      received[name] = begun(await playlist(base, name, (text) => text.match(/^segment-/gm)?.length >= 3));
    }));
    const running = [];
    for (const [name, players] of Object.entries(PLAYERS)) {
      for (const player of players) {
        const page = await browser.newPage();
        const refused = [];
        page.on('response', (response) => response.status() >= 400 && refused.push(`${response.status()} ${new URL(response.url()).pathname}`));
        await page.goto(pages.url);
        running.push({ name, player, page, refused });
      }
    }
    await Promise.all(running.map(({ name, player, page }) => page.evaluate(begin, [player, `${base}/live/${name}/index.m3u8`, BITS, SQUARE])));
    const late = await until(running, () => window.seen.samples.at(-1)?.frames > 50);
    await sleep(seconds * 1000);
    for (const name of names) publishers[name].kill('SIGKILL');
    await sleep(1000);
    // What a player has by now was sent before.
    await Promise.all(running.map(({ page }) => page.evaluate(() => {
      const { time, ahead, frames } = window.seen.samples.at(-1);
      window.seen.before = { until: time + ahead, frames };
    })));
    for (const name of names) publishers[name] = publish(base, source, name);
    late.push(...await until(running, () => {
      const { time, frames } = window.seen.samples.at(-1);
      return time > window.seen.before.until + 2 && frames > window.seen.before.frames + 50;
    }));
    for (const name of names) {
      received[name].push(begun(await playlist(base, name, (text) => text.includes('#EXT-X-DISCONTINUITY\n')))[1]);
    }
    await sleep(seconds * 1000);
    for (const name of names) {
      const { hls_viewers: counted } = await (await fetch(`${base}/live/${name}`)).json();
      console.log(`${name}: ${counted} viewers counted, ${PLAYERS[name].length} players`);
    }
    const results = [];
    for (const { name, player, page, refused } of running) {
      const { errors, notes, ...seen } = await page.evaluate(() => window.seen);
      const isLate = late.includes(page);
      results.push({ name, player, isLate, ...judge(seen, received[name]), errors, notes: notes.slice(0, 5), refused });
      await page.screenshot({ path: path.join(shots, `live-${player}-${name}.png`) });
      await page.close();
    }
    return results;
  } finally {
    for (const publisher of Object.values(publishers)) publisher.kill('SIGKILL');
  }
}

const [binary, shots, length = '0'] = process.argv.slice(2);
const seconds = Number(length);
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'weir-live-'));
process.on('exit', () => fs.rmSync(directory, { recursive: true, force: true }));
const [library, state, once, source] = ['library', 'state', 'once.mp4', 'source.mp4'].map((name) => path.join(directory, name));
execFileSync('ffmpeg', [
  '-nostdin', '-v', 'error', '-f', 'lavfi', '-i', `testsrc2=s=320x180:r=${RATE},${NUMBERED}`,
  '-f', 'lavfi', '-i', 'sine=r=48000', '-t', String(ROUND), '-c:v', 'libx264', '-preset', 'veryfast', '-bf', '2',
  '-g', String(RATE), '-sc_threshold', '0', '-pix_fmt', 'yuv420p', '-c:a', 'aac', once,
]);
// As long as anything may take. Publishers do not loop it: ffmpeg's bitstream filters end with the first round.
const rounds = Math.ceil((2 * seconds + 3 * LIMIT_MS / 1000) / ROUND);
execFileSync('ffmpeg', ['-nostdin', '-v', 'error', '-stream_loop', String(rounds), '-i', once, '-c', 'copy', source]);
for (const name of [library, state]) fs.mkdirSync(name);
const serve = [
  'serve', '--library', library, '--state-dir', state, '--write-key', KEY, '--log', 'info,weir::request=warn',
  // However long a busy machine takes until the publishers are back.
  '--reconnect-window', '60 s',
];
withBrowser(binary, serve, FLAGS, async (base, browser) => {
  const pages = await servePages();
  try {
    const results = await play(browser, pages, base, source, seconds, shots);
    const wrong = [];
    for (const result of results) {
      console.log(JSON.stringify(result));
      if (result.isLate || result.errors.length > 0) wrong.push(`${result.player} does not play ${result.name}`);
    }
    if (seconds > 0) console.log(table(results));
    if (wrong.length > 0) throw new Error(wrong.join('; '));
    console.log(`browser: ${results.length} players follow through a reconnect`);
  } finally {
    pages.close();
  }
});
