// Opens the demo page in Chromium as a person would: plays the sample, jumps to timecodes, and compares the picture that
// the browser shows with the frame that ffmpeg decodes. Usage: demo.cjs WEIR_BINARY DIRECTORY_FOR_SCREENSHOTS
'use strict';

const { execFileSync } = require('node:child_process');
const path = require('node:path');
const { withBrowser } = require('./weir.cjs');

const SAMPLE = path.join(__dirname, '../../assets/demo.mp4');
const WIDTH = 640;
const HEIGHT = 360;
// Drop-frame labels within the first minute, where no label is dropped: frame = 30 * seconds + frames.
const JUMPS = [['01:00:13;10', 400], ['01:00:00;00', 0], ['01:00:05;17', 167], ['01:00:23;28', 718], ['01:00:13;11', 401]];
function fail(message) {
  throw new Error(message);
}

// Luma of frames N-2 to N+2 as ffmpeg decodes them.
function expectedFrames(n) {
  const first = Math.max(0, n - 2);
  const raw = execFileSync('ffmpeg', [
    '-nostdin', '-loglevel', 'error', '-i', SAMPLE, '-vf', `select=between(n\\,${first}\\,${n + 2})`,
    '-fps_mode', 'passthrough', '-pix_fmt', 'gray', '-f', 'rawvideo', '-',
  ], { maxBuffer: 1 << 26 });
  const frames = new Map();
  for (let i = 0; (i + 1) * WIDTH * HEIGHT <= raw.length; i++) {
    frames.set(first + i, raw.subarray(i * WIDTH * HEIGHT, (i + 1) * WIDTH * HEIGHT));
  }
  return frames;
}

// The picture of the page's video element as luma.
async function shownFrame(video) {
  const luma = await video.evaluate((element, [width, height]) => {
    const canvas = document.createElement('canvas');
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext('2d');
    context.drawImage(element, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    let text = '';
    for (let i = 0; i < data.length; i += 4) {
      text += String.fromCharCode(Math.round(0.2126 * data[i] + 0.7152 * data[i + 1] + 0.0722 * data[i + 2]));
    }
    return btoa(text);
  }, [WIDTH, HEIGHT]);
  return Buffer.from(luma, 'base64');
}

function difference(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.abs(a[i] - b[i]);
  return sum / a.length;
}

function assertFrame(shown, n, label) {
  const distances = [...expectedFrames(n)].map(([frame, luma]) => [difference(shown, luma), frame]).sort((a, b) => a[0] - b[0]);
  const [[best, frame], second] = distances;
  console.log(`${label}: the picture is frame ${frame} (mean difference ${best.toFixed(2)}, next best ${second[0].toFixed(2)})`);
  if (frame !== n) fail(`${label}: the picture is frame ${frame}, not ${n}`);
  if (best > 12) fail(`${label}: the picture resembles no frame (mean difference ${best.toFixed(2)})`);
}

// Media time of the frame that is presented next, as the compositor reports it.
const presented = (element) => new Promise((resolve) => {
  element.requestVideoFrameCallback((now, metadata) => resolve(metadata.mediaTime));
  setTimeout(() => resolve(null), 5_000);
});

async function jump(page, video, base, id, label, n) {
  const sought = await (await fetch(`${base}/videos/${encodeURIComponent(id)}/seek?timecode=${label}`)).json();
  if (sought.frame !== n) fail(`/seek says frame ${sought.frame} for ${label}, not ${n}`);
  await video.evaluate((element) => element.pause());
  const box = page.locator('input[name="timecode"]').first();
  await box.fill(label);
  const shown = video.evaluate(presented);
  await box.press('Enter');
  const mediaTime = await shown;
  // The frame's own start, which the browser rounds to a microsecond. On a busy machine Chromium without a screen
  // sometimes makes no callback; the picture is compared in any case.
  if (mediaTime !== null && Math.abs(mediaTime - sought.presentation_time) > 2e-6) {
    fail(`${label}: the frame shown starts at ${mediaTime}, not at ${sought.presentation_time}`);
  }
  const near = ([element, time]) => !element.seeking && element.readyState >= 2 && Math.abs(element.currentTime - time) < 0.034;
  const handle = await video.elementHandle();
  await page.waitForFunction(near, [handle, sought.presentation_time], { timeout: 10_000 }).catch(() => {});
  await video.evaluate((element) => element.pause());
  const time = await video.evaluate((element) => element.currentTime);
  console.log(`${label}: currentTime ${time}, presentation_time ${sought.presentation_time}`);
  if (Math.abs(time - sought.presentation_time) >= 0.034) fail(`${label}: currentTime is ${time}`);
  await page.waitForTimeout(300); // until the decoded picture is on the element
  assertFrame(await shownFrame(video), n, label);
  return mediaTime;
}

// A chunk as fMP4 is a video of its own: from time 0, with a duration, to its end.
async function chunk(base, browser, id) {
  const page = await browser.newPage();
  await page.goto(base);
  const url = `${base}/videos/${encodeURIComponent(id)}/chunk?timecode=01:00:10;00&duration=3&as=fmp4`;
  const seen = await page.evaluate(async (source) => {
    const element = document.createElement('video');
    element.muted = true;
    element.src = source;
    document.body.append(element);
    const event = (name) => new Promise((resolve, reject) => {
      element.addEventListener(name, resolve, { once: true });
      element.addEventListener('error', () => reject(new Error(element.error.message)), { once: true });
    });
    await event('loadeddata');
    const start = { currentTime: element.currentTime, duration: element.duration, buffered: element.buffered.start(0) };
    const ended = event('ended');
    await element.play();
    await ended;
    const { totalVideoFrames } = element.getVideoPlaybackQuality();
    return { ...start, end: element.currentTime, totalVideoFrames, width: element.videoWidth };
  }, url);
  console.log('chunk as fmp4:', JSON.stringify(seen));
  if (seen.currentTime !== 0 || seen.buffered > 0.1) fail('the chunk does not begin at 0');
  // From the keyframe (at most two seconds before the timecode) on.
  if (!(seen.duration >= 3 && seen.duration <= 5.5)) fail(`the chunk's duration is ${seen.duration}`);
  if (seen.end < 2.9 || seen.totalVideoFrames < 60) fail('the chunk does not play to its end');
  await page.close();
}

async function visit(base, browser, shots) {
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  const complaints = [];
  page.on('console', (message) => message.type() === 'error' && complaints.push(`${message.text()} ${message.location().url}`));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('response', (response) => response.status() >= 400 && complaints.push(`${response.status()} ${response.url()}`));
  await page.goto(base, { waitUntil: 'load' });
  await page.screenshot({ path: path.join(shots, 'demo-page.png'), fullPage: true });

  const list = await (await fetch(`${base}/videos`)).json();
  const id = (list.videos ?? list)[0].id;
  const video = page.locator('video').first();
  if ((await video.count()) > 0) fail('there is a player before it is asked for');
  await page.getByRole('button', { name: 'Play' }).first().click();
  if ((await video.getAttribute('preload')) !== 'none') fail('the player loads before it is asked to');
  const handle = await video.elementHandle();
  const playing = (element) => !element.paused && element.currentTime > 1.5;
  await page.waitForFunction(playing, handle, { timeout: 15_000 });
  const quality = await video.evaluate((element) => {
    const { totalVideoFrames, droppedVideoFrames } = element.getVideoPlaybackQuality();
    return { totalVideoFrames, droppedVideoFrames, error: element.error && element.error.message };
  });
  console.log('playing:', JSON.stringify(quality));
  if (quality.error || quality.totalVideoFrames < 20) fail('it does not play');

  const mediaTimes = [];
  for (const [label, n] of JUMPS) mediaTimes.push(await jump(page, video, base, id, label, n));
  console.log('media times:', mediaTimes.join(' '));
  if (mediaTimes.every((time) => time === null)) fail('the browser reported no frame');
  await page.screenshot({ path: path.join(shots, 'demo-jumped.png') });

  await page.setViewportSize({ width: 390, height: 844 });
  const [wide, inner] = await page.evaluate(() => [document.scrollingElement.scrollWidth, window.innerWidth]);
  await page.screenshot({ path: path.join(shots, 'demo-phone.png'), fullPage: true });
  if (wide > inner) fail(`on a phone the page is ${wide} wide, the screen ${inner}`);
  if (complaints.length > 0) fail(`the browser complains:\n${complaints.join('\n')}`);
}

// The page of the benchmarks runs one, and draws what came out.
async function benchmark(admin, browser, shots) {
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  await page.goto(`${admin}/debug/bench`);
  const ended = () => document.querySelector('#empty .bar') || /busy/.test(document.querySelector('#empty pre').textContent);
  // A server that does more than a quarter of what the machine could do refuses for the moment.
  for (let turn = 0; turn < 20 && (await page.locator('#empty .bar').count()) === 0; turn++) {
    await page.locator('#empty button').click();
    const told = (error) => fail(`${error}\n${complaints.join('\n')}`);
    await page.waitForFunction(ended, null, { timeout: 120_000 }).catch(told);
    await page.waitForTimeout(500);
  }
  if ((await page.locator('#empty .bar').count()) === 0) fail('the page of the benchmarks shows no result');
  await page.screenshot({ path: path.join(shots, 'demo-benchmarks.png') });
  console.log('benchmarks:', await page.locator('#empty td.time').first().textContent());
  await page.close();
}

const [binary, shots] = process.argv.slice(2);
withBrowser(binary, ['demo'], [], async (base, browser, log) => {
  await visit(base, browser, shots);
  const list = await (await fetch(`${base}/videos`)).json();
  await chunk(base, browser, (list.videos ?? list)[0].id);
  await benchmark(/admin on (\S+)/.exec(log())[1], browser, shots);
  console.log(`browser: the demo plays and jumps; screenshots in ${shots}`);
});
