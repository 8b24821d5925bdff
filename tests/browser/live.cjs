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
const { chromium } = require('playwright-core');

const KEY = 'browser-test';
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--mute-audio', '--autoplay-policy=no-user-gesture-required', '--disable-renderer-backgrounding',
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
const PLAYERS = { mp4: ['hls.js', 'shaka', 'native'], frames: ['hls.js'], ts: ['hls.js', 'shaka', 'native'] };
// How long a busy machine may take until all players have begun, and until they are behind the reconnect.
const LIMIT_MS = 60_000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function startWeir(binary, directory) {
  for (const name of ['library', 'state']) fs.mkdirSync(path.join(directory, name));
  const child = spawn(binary, [
    'serve', '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0', '--library', path.join(directory, 'library'),
    '--state-dir', path.join(directory, 'state'), '--write-key', KEY, '--log', 'info,weir::request=warn',
  ], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, NO_COLOR: '1' } });
  let log = '';
  const base = new Promise((resolve, reject) => {
    const read = (text) => {
      log += text;
      const found = /listening on (http:\/\/[\d.]+:\d+)/.exec(log);
      if (found) resolve(found[1]);
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.on('exit', (code) => reject(new Error(`weir ended with ${code}:\n${log}`)));
  });
  return { child, base, log: () => log };
}

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

// In the page: begins to play, and notes twenty times a second whether the picture moves.
async function begin([player, url]) {
  const video = document.querySelector('video');
  const seen = { errors: [], notes: [], samples: [] };
  window.seen = seen;
  let date = () => (typeof video.getStartDate === 'function' ? +video.getStartDate() + video.currentTime * 1000 : NaN);
  if (player === 'hls.js') {
    const hls = new window.Hls({ lowLatencyMode: true });
    hls.on(window.Hls.Events.ERROR, (_, data) => {
      (data.fatal ? seen.errors : seen.notes).push(`${data.details} ${data.error?.message ?? ''}`);
    });
    hls.loadSource(url);
    hls.attachMedia(video);
    date = () => (hls.playingDate ? +hls.playingDate : NaN);
  } else if (player === 'shaka') {
    window.shaka.polyfill.installAll();
    const shaka = new window.shaka.Player();
    await shaka.attach(video);
    shaka.configure({ streaming: { lowLatencyMode: true } });
    // 1001: a part that was announced and did not come after all, which is 404; it goes on.
    shaka.addEventListener('error', (event) => (event.detail.severity === 2 && event.detail.code !== 1001 ? seen.errors : seen.notes).push(`shaka ${event.detail.code} ${event.detail.message}`));
    date = () => { const at = shaka.getPlayheadTimeAsDate(); return at ? +at : NaN; };
    await shaka.load(url).catch((error) => seen.errors.push(`shaka load ${error.code} ${error.message}`));
  } else {
    video.src = url;
    video.addEventListener('error', () => seen.errors.push(`video ${video.error.code} ${video.error.message}`));
  }
  video.play().catch((error) => seen.notes.push(String(error)));
  setInterval(() => {
    const ahead = video.buffered.length ? video.buffered.end(video.buffered.length - 1) - video.currentTime : 0;
    seen.samples.push([performance.now(), video.currentTime, (Date.now() - date()) / 1000, ahead, video.getVideoPlaybackQuality().totalVideoFrames]);
  }, 50);
}

// Of the samples of one player: frames, when it began, delay to live (median of the halves), stalls of over 0.3 s.
function judge(samples) {
  const first = samples.findIndex(([, time], n) => n > 0 && time > samples[n - 1][1]);
  if (first < 0) return { frames: samples.at(-1)?.[4] ?? 0, started: null, stalls: [] };
  const stalls = [];
  let [since] = samples[first];
  for (let n = first + 1; n < samples.length; n++) {
    const [now, time] = samples[n];
    if (time !== samples[n - 1][1]) {
      if (now - since > 300) stalls.push([Math.round((since - samples[0][0]) / 100) / 10, Math.round((now - since) / 100) / 10]);
      since = now;
    }
  }
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  const delay = (part) => median(part.map(([, , delay]) => delay).filter(Number.isFinite));
  const half = first + ((samples.length - first) >> 1);
  const round = (value) => (value === undefined ? null : Math.round(value * 100) / 100);
  return {
    frames: samples.at(-1)[4],
    started: round((samples[first][0] - samples[0][0]) / 1000),
    delay: [round(delay(samples.slice(first, half))), round(delay(samples.slice(half)))],
    ahead: round(median(samples.slice(half).map(([, , , ahead]) => ahead))),
    stalls,
    still: (samples.at(-1)[0] - since) / 1000,
  };
}

// Delays to live before and after the reconnect, and every stall, as Markdown.
function table(results) {
  const stall = ([at, length]) => `${length} (at ${at})`;
  const rows = results.map(({ player, name, started, delay, ahead, stalls }) =>
    [player, name, started, ...delay.map((seconds) => seconds ?? 'not told'), ahead, stalls.map(stall).join(', ') || 'none'].join(' | '));
  const head = 'player | stream | started after, s | delay before, s | delay after, s | buffered, s | stalls of over 0.3 s, in s';
  return [head, '--- | --- | ---: | ---: | ---: | ---: | ---', ...rows].map((row) => `| ${row} |`).join('\n');
}

// Chromium's own player begins three segments behind the end, and gives up where these are not there yet.
async function ready(base, name) {
  for (let n = 0; n < 200; n++) {
    const answer = await fetch(`${base}/live/${name}/index.m3u8`);
    if (answer.ok && (await answer.text()).match(/^segment-/gm)?.length >= 3) return;
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
  const publishers = Object.fromEntries(Object.keys(PUBLISHED).map((name) => [name, publish(base, source, name)]));
  try {
    await Promise.all(Object.keys(PUBLISHED).map((name) => ready(base, name)));
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
    await Promise.all(running.map(({ name, player, page }) => page.evaluate(begin, [player, `${base}/live/${name}/index.m3u8`])));
    const late = await until(running, () => window.seen.samples.at(-1)?.[4] > 50);
    await sleep(seconds * 1000);
    for (const name of Object.keys(PUBLISHED)) publishers[name].kill('SIGKILL');
    await sleep(1000);
    // What a player has by now was sent before.
    await Promise.all(running.map(({ page }) => page.evaluate(() => {
      const [, time, , ahead, frames] = window.seen.samples.at(-1);
      window.seen.before = { until: time + ahead, frames };
    })));
    for (const name of Object.keys(PUBLISHED)) publishers[name] = publish(base, source, name);
    late.push(...await until(running, () => {
      const [, time, , , frames] = window.seen.samples.at(-1);
      return time > window.seen.before.until + 2 && frames > window.seen.before.frames + 50;
    }));
    await sleep(seconds * 1000);
    const results = [];
    for (const { name, player, page, refused } of running) {
      const { samples, errors, notes } = await page.evaluate(() => window.seen);
      const isLate = late.includes(page);
      results.push({ name, player, isLate, ...judge(samples), errors, notes: notes.slice(0, 5), refused });
      await page.screenshot({ path: path.join(shots, `live-${player}-${name}.png`) });
      await page.close();
    }
    return results;
  } finally {
    for (const publisher of Object.values(publishers)) publisher.kill('SIGKILL');
  }
}

async function main() {
  const [binary, shots, length = '0'] = process.argv.slice(2);
  const seconds = Number(length);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'weir-live-'));
  const [once, source] = ['once.mp4', 'source.mp4'].map((name) => path.join(directory, name));
  execFileSync('ffmpeg', [
    '-nostdin', '-v', 'error', '-f', 'lavfi', '-i', 'testsrc2=s=320x180:r=25', '-f', 'lavfi', '-i', 'sine=r=48000', '-t', '30',
    '-c:v', 'libx264', '-preset', 'veryfast', '-bf', '2', '-g', '25', '-sc_threshold', '0', '-pix_fmt', 'yuv420p', '-c:a', 'aac', once,
  ]);
  // As long as anything may take. Publishers do not loop it: ffmpeg's bitstream filters end with the first round.
  const rounds = Math.ceil((2 * seconds + 3 * LIMIT_MS / 1000) / 30);
  execFileSync('ffmpeg', ['-nostdin', '-v', 'error', '-stream_loop', String(rounds), '-i', once, '-c', 'copy', source]);
  const weir = startWeir(binary, directory);
  const pages = await servePages();
  let browser;
  try {
    const base = await weir.base;
    browser = await chromium.launch({ executablePath: process.env.WEIR_CHROMIUM || '/usr/bin/chromium', args: FLAGS });
    const results = await play(browser, pages, base, source, seconds, shots);
    const wrong = [];
    for (const result of results) {
      console.log(JSON.stringify(result));
      if (result.isLate || result.errors.length > 0) wrong.push(`${result.player} does not play ${result.name}`);
    }
    if (seconds > 0) console.log(table(results));
    if (wrong.length > 0) throw new Error(wrong.join('; '));
    console.log(`browser: ${results.length} players follow through a reconnect`);
  } catch (error) {
    console.error(`${error.stack}\n--- weir ---\n${weir.log()}`);
    process.exitCode = 1;
  } finally {
    if (browser) await browser.close();
    pages.close();
    weir.child.removeAllListeners('exit');
    weir.child.kill('SIGTERM');
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

main();
